"""The training loop that every script shares: resume, steps, log, samples, scores, checkpoints, stopping.

What is trained is a :class:`~cs_gan.training.task.Task`; it says what a step is, and how to sample and score.
"""

from __future__ import annotations

import json
import math
import warnings

from torch import Tensor

from cs_gan.errors import DivergedError
from cs_gan.training.checkpoint import list_checkpoints
from cs_gan.training.config import save_config
from cs_gan.training.progress import Interrupted, Progress, StopRequest
from cs_gan.training.resume import checkpoint, resume
from cs_gan.training.run_folder import Row, append_line, read_lines, write_lines, write_whole
from cs_gan.training.session import Session
from cs_gan.training.task import State, Task


def train(task: Task) -> str:
    """All steps, from the checkpoint on if there is one.

    Returns:
        The signal that ended it early, such as ``SIGTERM received``, or nothing.
    """
    session, training = task.session, task.session.config.training
    state = resume(task)
    _start_log(session, state)
    stop = StopRequest(training.max_minutes)
    progress = Progress(state.step, training.steps, shown=session.is_main)
    progress.say(_opening(task, state))
    ended = ""
    try:
        if _due(state.step, training.evaluate_every) or state.step == 0:
            _look(task, state, stop, progress)  # a kill during an evaluation left it out
        for step in range(state.step, training.steps):
            losses = task.step(step)
            state.step = step + 1
            progress.step(task.images_per_step)
            stopping = _record(task, state, losses, stop, progress)

            last = state.step == training.steps or (stopping and not stop.signal)
            due = {
                name: last or _due(state.step, getattr(training, f"{name}_every")) for name in ("sample", "evaluate")
            }
            # An evaluation can take long. What it would lose if it were cut short is saved first.
            if stopping or due["evaluate"] or _due(state.step, training.checkpoint_every):
                checkpoint(task, state)
            if not stop.signal:
                _look(task, state, stop, progress, **due)
            if stopping:
                ended = stop.reason or "another process was stopped"
                break
        if not ended:
            _finish(task, state, stop, progress)
    except Interrupted:
        ended = stop.reason
    progress.close()
    if session.is_main:
        print(_closing(task, state, ended))
    return ended if stop.signal else ""


def _due(done: int, every: int) -> bool:
    return every > 0 and done > 0 and done % every == 0


def _start_log(session: Session, state: State) -> None:
    """The files as they were at the step that the run goes on from."""
    if session.is_main:
        folder = session.folder
        write_lines(folder.log, [row for row in read_lines(folder.log) if row["step"] <= state.step])
        write_lines(folder.metrics, state.metrics)
        save_config(session.config, folder.config)
    session.start_trackers(state.step)


def _record(task: Task, state: State, losses: dict[str, Tensor], stop: StopRequest, progress: Progress) -> bool:
    """Keep the losses of a step, averaged over processes; every so often a line of log. Whether to stop.

    Raises:
        DivergedError: on all processes, if a loss isn't finite on any.
    """
    session = task.session
    averages, stopping = session.combine(list(losses.values()), bool(stop))
    values = dict(zip(losses, averages, strict=True))
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        kept = list_checkpoints(session.folder.checkpoints)
        raise DivergedError(
            f"step {state.step}: {', '.join(bad)} is not finite. "
            + (f"The last good checkpoint is {kept[-1]}. " if kept else "No checkpoint was written yet. ")
            + "Try a smaller training.learning_rate or coded weight."
        )
    for name, value in values.items():
        state.losses.setdefault(name, []).append(value)
    if state.step % session.config.training.log_every == 0:
        means = {name: sum(kept) / len(kept) for name, kept in state.losses.items()}
        state.losses.clear()
        speed = progress.show(means)
        means |= task.extras()
        if session.is_main:
            append_line(session.folder.log, {"step": state.step, **means, "images_per_second": round(speed, 1)})
        session.track(means | {"images_per_second": speed}, state.step)
    return stopping


def _look(
    task: Task, state: State, stop: StopRequest, progress: Progress, *, sample: bool = True, evaluate: bool = True
) -> None:
    """Pictures and scores of the state, where they are due."""
    session = task.session
    if sample and session.is_main:
        task.sample(state.step)
    if evaluate and all(row["step"] != state.step for row in state.metrics):
        with stop.interruptible():
            row = task.evaluate({"step": state.step})
        if row is not None:
            _keep(task, state, {"step": state.step, **row}, progress)
    if sample or evaluate:
        session.accelerator.wait_for_everyone()
        progress.pause()


def _keep(task: Task, state: State, row: Row, progress: Progress) -> None:
    state.metrics.append(row)
    session = task.session
    if session.is_main:
        append_line(session.folder.metrics, row)
        if state.best is row:
            task.save_snapshot(session.folder.best, state.step, row["scores"])
        _draw(task)
    session.track({name: float(value) for name, value in row["scores"].items()}, state.step)
    notes = "".join(f" ({note})" for note in row["provenance"].get("notes", []))
    progress.say(f"step {state.step}: {row['primary']} = {row['scores'][row['primary']]:.4g}{notes}")


def _draw(task: Task) -> None:
    try:
        task.draw()
    except Exception as error:  # a picture is not worth a run
        warnings.warn(f"the report of {task.session.folder.path} couldn't be drawn: {error!r}", stacklevel=2)


def _finish(task: Task, state: State, stop: StopRequest, progress: Progress) -> None:
    """The final and the best network, scored in full, in scores.json."""
    session, path = task.session, task.session.folder.scores
    best = state.best
    if best is None or (path.exists() and json.loads(path.read_text())["final"]["step"] == state.step):
        return
    with stop.interruptible():
        final = task.evaluate({"step": state.step}, full=True)
        full = {"final": {"step": state.step, **(final or {})}}
        if best["step"] == state.step:
            full["best"] = full["final"]
        else:
            found = task.evaluate({"step": best["step"]}, full=True, snapshot=session.folder.best)
            full["best"] = {"step": best["step"], **(found or {})}
    if session.is_main:
        write_whole(path, json.dumps(full, indent=2))
        _draw(task)
    session.accelerator.wait_for_everyone()
    for name, row in full.items():
        progress.say(f"{name}, step {row['step']}: {row['primary']} = {row['scores'][row['primary']]:.4g}")


def _opening(task: Task, state: State) -> str:
    where = f"Going on from step {state.step}." if state.step else f"Writing to {task.session.folder.path}"
    return "\n".join([*task.describe(), task.session.describe(), where])


def _closing(task: Task, state: State, ended: str) -> str:
    folder, config = task.session.folder, task.session.config
    auto = "" if config.resume == "auto" else " with --resume=auto"
    lines = [f"Ended early: {ended}. The same command{auto} goes on from here." if ended else "Done."]
    places = [("report", folder.report), ("samples", folder.grid), ("curve", folder.curve)]
    places += [("losses", folder.log), ("network", folder.snapshot), ("best", folder.best)]
    lines += [f"  {name:<10} {path}" for name, path in places if path.exists()]
    lines.append(f"  checkpoint {folder.checkpoints}")
    if state.metrics and state.best:
        first, last, name = state.metrics[0], state.metrics[-1], state.metrics[-1]["primary"]
        shown = [f"{row['scores'][name]:.4g} at step {row['step']}" for row in (first, last)]
        lines.append(f"  score      {name}: {shown[0]}, {shown[1]}; best at step {state.best['step']}")
    return "\n".join(lines)
