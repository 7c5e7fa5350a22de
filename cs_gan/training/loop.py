"""The training loop that every script shares: resume, steps, log, samples, scores, checkpoints, stopping.

It trains a :class:`~cs_gan.training.task.Task`, which defines a step, and how to sample and score.
"""

from __future__ import annotations

import json
import math
import signal
import warnings
from pathlib import Path
from typing import Any

import torch

from cs_gan.errors import CheckpointError, DivergedError
from cs_gan.runs import LOG_LINE, Row, append_line, read_lines, write_lines, write_whole, written
from cs_gan.training.checkpoint import list_checkpoints
from cs_gan.training.progress import Interrupted, Progress, StopRequest
from cs_gan.training.recipes.parse import save_config
from cs_gan.training.recipes.sections import LoopConfig
from cs_gan.training.resume import checkpoint, resume
from cs_gan.training.session import Session
from cs_gan.training.snapshot import read_snapshot
from cs_gan.training.task import State, Task


def train(task: Task[Any]) -> int:
    """Run all remaining steps. Starts from the checkpoint if there is one.

    Returns:
        The number of the signal that ended it early; 0 if none did. In a process that got none itself it is SIGTERM.
    """
    session, training = task.session, task.session.config.training
    state = resume(task)
    _start_log(session, state)
    stop = StopRequest(training.max_minutes)
    progress = Progress(state.step, training.steps, shown=session.is_main)
    progress.say(_opening(task, state))
    ended, signalled = "", False
    try:
        # A kill may have come between a checkpoint and the grid or evaluation of its step. Redo them.
        _look(task, state, stop, progress, **_looks(state, training))
        for step in range(state.step, training.steps):
            losses = task.step(step)
            state.step = step + 1
            state.losses.add(state.step, losses)
            progress.step(task.images_per_step)
            if step == 0 and session.is_main:
                _draw(task)  # the scores before it: the user waits for the first step, not for their picture
                progress.pause()
            saving = _looks(state, training)["evaluate"] or _due(state.step, training.checkpoint_every)
            stopping, signalled = _record(task, state, stop, progress, now=saving)

            due = _looks(state, training, last=stopping and not signalled)
            # An evaluation can take long, so save a checkpoint first.
            if stopping or saving:
                checkpoint(task, state)
            if not signalled:  # the same in all processes, otherwise some would wait for the others in an evaluation
                _look(task, state, stop, progress, **due)
            if stopping:
                ended = stop.reason or "another process was stopped"
                break
        if not ended:
            _finish(task, state, stop, progress)
        if session.is_main:
            _draw(task)  # again, now with the losses since the last evaluation
    except Interrupted:
        ended, signalled = stop.reason, True
    finally:
        progress.close()  # so that an error message starts on a new line
    if session.is_main:
        print(_closing(task, state, ended))
    return (stop.signal or signal.SIGTERM) if signalled else 0


def _due(done: int, every: int) -> bool:
    return every > 0 and done > 0 and done % every == 0


def _looks(state: State, training: LoopConfig, last: bool = False) -> dict[str, bool]:
    """Whether to ``sample`` and to ``evaluate`` after this step. Both are done before the first and after the last."""
    always = last or state.step == 0 or state.step >= training.steps
    return {name: always or _due(state.step, getattr(training, f"{name}_every")) for name in ("sample", "evaluate")}


def _start_log(session: Session[Any], state: State) -> None:
    """Put the files back to where they were at the step that the run resumes from."""
    if session.is_main:
        folder = session.folder
        write_lines(folder.log, [row for row in read_lines(folder.log, LOG_LINE) if row["step"] <= state.step])
        write_lines(folder.metrics, state.metrics)
        if _scored(folder.scores) > state.step:  # from steps that this resume discards
            folder.scores.unlink()
        for step, grid in folder.grid_steps():
            if step > state.step:
                grid.unlink()
        save_config(session.config, folder.config, session.command)
    session.start_trackers(state.step)


def _record(task: Task[Any], state: State, stop: StopRequest, progress: Progress, now: bool) -> tuple[bool, bool]:
    """Read the losses if needed, averaged over processes, and write a line of the log every ``log_every`` steps.

    Args:
        now: read them in any case, because a checkpoint follows.

    Returns:
        Whether to stop, and whether a signal asked for it; the same in all processes. Several processes on GPUs agree
        on it when they read, so after ``log_every`` steps at the latest.

    Raises:
        DivergedError: in all processes, if a loss isn't finite in one of them.
    """
    session = task.session
    logging = state.step % session.config.training.log_every == 0
    if session.waits_to_read and not (logging or now or (session.processes == 1 and stop)):
        return False, False
    asks_to_stop, has_signal = bool(stop), bool(stop.signal)
    votes = torch.tensor([float(has_signal), float(asks_to_stop or has_signal)], device=session.device)
    *values, signalled, stopping = session.averages(torch.cat([state.losses.unread(), votes]))
    bad = state.losses.accept(values)
    if bad:
        first, names = bad[0][0], list(dict.fromkeys(name for step, name in bad if step == bad[0][0]))
        checkpoints = list_checkpoints(session.folder.checkpoints)
        raise DivergedError(
            f"step {first}: {', '.join(names)} is not finite. "
            + (f"The last good checkpoint is {checkpoints[-1]}. " if checkpoints else "No checkpoint was written yet. ")
            + "Try a smaller training.learning_rate or coded weight, in another --output_dir."
        )
    if logging:
        means = state.losses.take()
        speed = progress.show(means)
        if not state.remarked:
            state.remarked = True
            for remark in task.remarks(means):
                progress.say(remark)
        means |= task.extras()
        if session.is_main:
            append_line(session.folder.log, {"step": state.step, **means, "images_per_second": round(speed, 1)})
        session.track(means | {"images_per_second": speed}, state.step)
    return stopping > 0, signalled > 0


def _look(
    task: Task[Any], state: State, stop: StopRequest, progress: Progress, *, sample: bool = True, evaluate: bool = True
) -> None:
    """Save pictures and compute scores, as asked for."""
    session = task.session
    if sample and session.is_main:
        with written(session.folder.grids):
            task.sample(state.step)
    if evaluate and all(row["step"] != state.step for row in state.metrics):
        with stop.interruptible():
            row = session.of_first(task.evaluate(_about(task, state.step)))  # in others, last bits may differ
        if row is not None:
            row = {"step": state.step, **row}
            if state.step <= task.warm_up_steps:
                row["untrained"] = True
            if not _looks(state, session.config.training)["evaluate"]:
                row["extra"] = True
            _keep(task, state, row, progress)
    if sample or evaluate:
        session.accelerator.wait_for_everyone()
        progress.pause()


def _about(task: Task[Any], step: int, history: list[str] | None = None) -> dict[str, Any]:
    """Provenance of a score that the loop knows: step, hardware, and the history of an extended run."""
    history = task.session.config.history if history is None else history
    about = {"step": step, "hardware": task.session.hardware}
    return about | {"history": list(history)} if history else about


def _keep(task: Task[Any], state: State, row: Row, progress: Progress) -> None:
    state.metrics.append(row)
    session = task.session
    if session.is_main:
        if state.best is row:  # before the line in metrics.jsonl, from which a resume concludes that all this is done
            # Not a cross-entropy of NaN, from a network that diverged: it must not cost the snapshot.
            finite = {name: value for name, value in row["scores"].items() if math.isfinite(value)}
            task.save_snapshot(session.folder.best, state.step, finite)
        append_line(session.folder.metrics, row)
        if state.step:
            _draw(task)
    session.track({name: float(value) for name, value in row["scores"].items()}, state.step)
    notes = "".join(f" ({note})" for note in row["provenance"].get("notes", []))
    progress.say(f"step {state.step}: {row['primary']} = {row['scores'][row['primary']]:.4g}{notes}")


def _draw(task: Task[Any]) -> None:
    try:
        task.draw()
    except Exception as error:  # a failed picture must not end a run
        warnings.warn(f"the report of {task.session.folder.path} couldn't be drawn: {error!r}", stacklevel=2)


def _finish(task: Task[Any], state: State, stop: StopRequest, progress: Progress) -> None:
    """Score the final and the best network in full, and write scores.json."""
    session, path = task.session, task.session.folder.scores
    best = state.best
    if best is None or session.of_first(_scored(path) == state.step):  # the first process soon writes the file
        return
    last = state.metrics[-1]
    if not task.rescores:
        full = {"final": last, "best": best}
    else:
        with stop.interruptible():
            full = {"final": {**last, **(task.evaluate(_about(task, last["step"]), full=True) or {})}}
            if best is last:
                full["best"] = full["final"]
            elif not session.in_all(_holds(session.folder.best, best["step"])):  # after a resume from an earlier step
                progress.say(f"{session.folder.best} isn't of step {best['step']}, which scored best: it isn't scored.")
            else:
                about = _about(task, best["step"], best["provenance"].get("history", []))
                found = task.evaluate(about, full=True, snapshot=session.folder.best)
                full["best"] = {**best, **(found or {})}
    if session.is_main:
        write_whole(path, json.dumps(full, indent=2))
    session.accelerator.wait_for_everyone()
    for name, row in full.items():
        progress.say(f"{name}, step {row['step']}: {row['primary']} = {row['scores'][row['primary']]:.4g}")


def _scored(path: Path) -> int:
    """The last step in scores.json, or -1."""
    try:
        return int(json.loads(path.read_text())["final"]["step"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return -1


def _holds(path: Path, step: int) -> bool:
    """Whether the file is a snapshot of that step."""
    try:
        return read_snapshot(path).step == step
    except CheckpointError:
        return False


def _opening(task: Task[Any], state: State) -> str:
    where = f"Continuing from step {state.step}." if state.step else f"Writing to {task.session.folder.path}"
    notes = [f"note: {note}" for note in task.session.config.history]
    return "\n".join([*task.describe(), task.session.describe(), where, *notes])


def _closing(task: Task[Any], state: State, ended: str) -> str:
    folder, config = task.session.folder, task.session.config
    auto = "" if config.resume == "auto" else " with --resume=auto"
    auto += " without --overwrite" if task.session.overwrote else ""
    checkpoints = list_checkpoints(folder.checkpoints)
    where = (
        f"continues from step {state.step}" if checkpoints else "starts again at step 0: no checkpoint was written yet"
    )
    lines = [f"Ended early: {ended}. The same command{auto} {where}." if ended else "Done."]
    places = [("report", folder.report), ("samples", folder.grid), ("curve", folder.curve)]
    places += [("losses", folder.log), ("network", folder.snapshot), ("best", folder.best)]
    lines += [f"  {name:<10} {path}" for name, path in places if path.exists()]
    lines += [f"  checkpoint {path}" for path in checkpoints[-1:]]
    if state.metrics and state.best:
        first, last, name = state.metrics[0], state.metrics[-1], state.metrics[-1]["primary"]
        shown = [f"{row['scores'][name]:.4g} at step {row['step']}" for row in (first, last)]
        lines.append(f"  score      {name}: {shown[0]}, {shown[1]}; best at step {state.best['step']}")
    return "\n".join(lines)
