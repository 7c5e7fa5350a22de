"""Write a run's checkpoint and resume from it. A resume checks that recipe and circumstances are the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from cs_gan.errors import CheckpointError, ConfigError, DivergedError
from cs_gan.runs import LOG_LINE, METRICS_LINE, Row, lacking, read_lines
from cs_gan.runs.settings import FREE_ON_RESUME, LENGTH
from cs_gan.training.checkpoint import (
    abandon_after,
    begin_from,
    list_checkpoints,
    mark_begun,
    read_checkpoint,
    restore,
    save_checkpoint,
)
from cs_gan.training.lineage import began, extend
from cs_gan.training.recipes.parse import as_plain, differences
from cs_gan.training.snapshot import is_finite
from cs_gan.training.task import State, Task
from cs_gan.training.unread_losses import UnreadLosses

DATA = {"images", "labels", "scored_images"}
"""Circumstances that are another data set: with them a new run may begin."""


def checkpoint(task: Task[Any], state: State) -> None:
    """Write everything a resume needs, and the snapshot. Called in all processes; the first one writes.

    Raises:
        DivergedError: if a weight isn't finite. The last good checkpoint stays.
        CheckpointError: if it can't be written.
    """
    session = task.session
    tensors: list[Any] = [value for module in task.modules.values() for value in module.state_dict().values()]
    tensors += [value for each in task.optimizers.values() for s in each.state.values() for value in s.values()]
    finite = all(is_finite(value) for value in tensors if isinstance(value, torch.Tensor))
    if not session.in_all(finite):  # each process has its own running statistics
        raise DivergedError(
            f"step {state.step}: weights are not finite, and no checkpoint is written over the last good one."
        )
    if session.is_main:
        mark_begun(session.folder.checkpoints, state.step)
        # Before the checkpoint, because a resume repeats only work that comes after the checkpoint.
        task.save_snapshot(session.folder.snapshot, state.step, None)
        about = {
            "config": as_plain(session.config),
            "circumstances": task.circumstances,
            "machine": session.machine,
            "losses": state.losses.values,
            "metrics": state.metrics,
            "best": state.best,
        }
        keep = session.config.training.keep_checkpoints
        save_checkpoint(session.folder.checkpoints, state.step, task.modules, task.optimizers, about, keep)
    session.accelerator.wait_for_everyone()


def resume(task: Task[Any]) -> State:
    """Load the requested checkpoint into the task. Returns a new state if there is none.

    A checkpoint of another folder and another recipe gives its weights to a new run.

    Raises:
        ConfigError: for a checkpoint of another recipe (with the differences), or if a run would be overwritten.
        CheckpointError: if the checkpoint is damaged. Nothing is changed then.
    """
    session = task.session
    config, folder = session.config, session.folder
    checkpoints = [] if session.overwrote else list_checkpoints(folder.checkpoints)
    if config.resume == "never" and checkpoints:
        raise ConfigError(
            f"{folder.path} holds a run: give another --output_dir, --resume=auto to continue it, or --overwrite to "
            "lose it."
        )
    if not checkpoints and not session.overwrote and (results := _results(task)):
        raise ConfigError(
            f"{folder.path} holds {results} of a run whose checkpoints are gone, and a new run would write over it: "
            "give another --output_dir, or --overwrite to lose it."
        )
    if config.resume == "never" or (config.resume == "auto" and not checkpoints):
        if config.extend != "never":
            raise ConfigError(f"--extend continues a run, and {folder.path} holds no checkpoint. Leave it out.")
        config.history = []
        session.overwrite()
        return State()
    path = checkpoints[-1] if config.resume == "auto" else _asked(Path(config.resume), folder.path)
    tensors, stored = read_checkpoint(path)
    _require_state(path, stored)
    extending = config.extend != "never"
    config.history = list(stored["config"].get("history", []))
    if extending:
        extend(config, stored)
    if changed := _changes(task, stored, extending):
        # With the same recipe and another number of processes, the user does not want a new run.
        longer = config.training.steps >= stored["config"]["training"]["steps"]
        same = all(line.split(":")[0] in task.circumstances.keys() - DATA for line in changed)
        if extending or same or path.resolve().parent == folder.checkpoints.resolve():
            raise ConfigError(_refusal(path, changed, extending, same, longer))
        session.overwrite()
        return _begin(task, path, tensors, stored, changed)
    step = int(stored["step"])
    if step > config.training.steps:
        raise ConfigError(
            f"{path} has more steps than training.steps={config.training.steps}, and its run would be recorded as "
            f"shorter than it is. Ask for {step} or more, or give another --output_dir."
        )
    session.overwrite()
    read_lines(folder.log, LOG_LINE)  # raises an error now, before anything is loaded or moved
    metrics = _history(stored["metrics"], read_lines(folder.metrics, METRICS_LINE), step)
    restore(tensors, stored, task.modules, task.optimizers)
    if session.is_main and stored["machine"] != session.machine:
        print(
            f"note: {path} was written with {stored['machine']}, and this is {session.machine}: the run continues, but "
            "rounds in its own way from here.",
            file=sys.stderr,
        )
    session.accelerator.wait_for_everyone()  # until all have read, before files are moved
    if session.is_main:
        abandon_after(folder.checkpoints, step)
    return State(step, UnreadLosses(stored["losses"]), metrics)


def _require_state(path: Path, stored: dict[str, Any]) -> None:
    """Raise CheckpointError for a state.json that another version or program wrote."""
    keys = {"config": dict, "circumstances": dict, "machine": dict, "losses": dict, "metrics": list}
    problem = lacking(stored, keys)
    problem = problem or next((lack for row in stored["metrics"] if (lack := lacking(row, METRICS_LINE))), "")
    problem = problem or lacking(stored["config"].get("training"), {"steps": int})
    if not problem and not all(isinstance(values, list) for values in stored["losses"].values()):
        problem = "has losses that are no lists"
    if problem:
        raise CheckpointError(
            f"{path / 'state.json'} {problem}: another version of cs_gan wrote it. Resume with that version, or give "
            "another --output_dir."
        )


def _results(task: Task[Any]) -> str:
    """The name of a result in a folder without checkpoints; empty if there is none.

    A run that was killed before its first checkpoint left lines of its log and pictures. The same recipe starts again
    and replaces them; another one doesn't.
    """
    folder = task.session.folder
    began = any(folder.checkpoints.glob(".partial-*"))  # the first checkpoint, after the snapshot of its step
    for path in (folder.scores, folder.best, *([] if began else [folder.snapshot])):
        if path.exists():
            return path.name
    if any(row["step"] > 0 for row in read_lines(folder.metrics, METRICS_LINE)):
        return folder.metrics.name
    logged = any(row["step"] > 0 for row in read_lines(folder.log, LOG_LINE))
    return folder.log.name if logged and not _same_recipe(task) else ""


def _same_recipe(task: Task[Any]) -> bool:
    """Whether the folder's recipe gives the same run."""
    try:
        stored = yaml.safe_load(task.session.folder.config.read_text())
    except (OSError, yaml.YAMLError, RecursionError):
        return False
    if not isinstance(stored, dict):
        return False
    return all(line.split(":")[0] in FREE_ON_RESUME | LENGTH for line in differences(stored, task.session.config))


def _asked(requested: Path, own: Path) -> Path:
    """The checkpoint for ``--resume=<given>``. For the folder of another run, this is its newest."""
    checkpoints = list_checkpoints(requested / "checkpoints")
    if checkpoints and requested.resolve() == own.resolve():
        raise ConfigError(
            f"--resume={requested} is the output_dir itself, and is no checkpoint: --resume=auto continues the run, "
            f"--resume={checkpoints[-1]} from that checkpoint. To begin a new run with its weights, give another "
            "--output_dir."
        )
    return checkpoints[-1] if checkpoints else requested


def _changes(task: Task[Any], stored: dict[str, Any], extending: bool) -> list[str]:
    """The differences between this run and a stored one, one line each."""
    config = task.session.config
    free = FREE_ON_RESUME if config.scheduled and not extending else FREE_ON_RESUME | LENGTH
    changed = [line for line in differences(stored["config"], config) if line.split(":")[0] not in free]
    changed = [f"{line} (a schedule depends on it)" if line.split(":")[0] in LENGTH else line for line in changed]
    before, now = stored["circumstances"], task.circumstances
    # Checkpoints of older versions lack some.
    return changed + [f"{key}: {before[key]} -> {now[key]}" for key in now if key in before and before[key] != now[key]]


def _refusal(path: Path, changed: list[str], extending: bool, same: bool, longer: bool) -> str:
    """The error message: why a run can't resume from a checkpoint, and what to do.

    Args:
        path: the checkpoint.
        changed: the differences.
        extending: whether ``--extend`` was given.
        same: whether the recipe is the same.
        longer: whether at least as many steps are asked for.
    """
    text = f"{path} belongs to another recipe; changed since: {'; '.join(changed)}."
    only_length = not extending and all(line.split(":")[0] in LENGTH for line in changed)
    if only_length and longer:
        text += (
            " --extend trains longer all the same, with schedules held at their end (--extend=stretch: spread over all "
            "steps), and records that the run was extended."
        )
    text += " Give another --output_dir to start a new run"
    return f"{text}." if same else f"{text}; with --resume={path} too, a new run begins there with these weights."


def _begin(
    task: Task[Any], path: Path, tensors: dict[str, torch.Tensor], stored: dict[str, Any], changed: list[str]
) -> State:
    """Start a new run with the weights of another one."""
    session = task.session
    checkpoints = list_checkpoints(session.folder.checkpoints)
    if checkpoints:
        raise ConfigError(
            f"{session.folder.path} holds a run, and {path} can't begin another one there: give another --output_dir, "
            "or --resume=auto to continue the run that is there."
        )
    try:
        fresh = begin_from(tensors, stored, task.modules, task.optimizers)
    except CheckpointError as error:
        raise ConfigError(
            f"--resume={path}: {error} A new run with its weights needs the networks of its recipe."
        ) from error
    session.config.history.append(began(path, int(stored["step"]), fresh))
    if session.is_main:
        print(f"A new run begins with the weights of {path}; changed since: {'; '.join(changed)}.", file=sys.stderr)
    state = State()
    session.accelerator.wait_for_everyone()  # until all have checked the folder
    checkpoint(task, state)  # otherwise a kill before the first checkpoint would lose the weights
    return state


def _history(stored: list[Row], written: list[Row], step: int) -> list[Row]:
    """Evaluations up to ``step``. The one at ``step`` itself came after the checkpoint: only the file has it.

    One that only a time limit asked for is dropped: the run goes on as if it hadn't been interrupted.
    """
    return stored + [row for row in written if row["step"] == step and row not in stored and not row.get("extra")]
