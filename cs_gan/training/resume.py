"""A run's checkpoint and the way back: what is kept, and what must be the same to go on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from cs_gan.errors import ConfigError, DivergedError
from cs_gan.training.checkpoint import abandon_after, list_checkpoints, read_checkpoint, restore, save_checkpoint
from cs_gan.training.config import as_plain, differences
from cs_gan.training.losses import Losses
from cs_gan.training.run_folder import Row, read_lines
from cs_gan.training.task import State, Task

# What a resumed run may do differently without becoming another run.
FREE_ON_RESUME = {
    *(
        "resume",
        "output_dir",
        "dry_run",
        "data.root",
        "data.workers",
        "data.device",
        "training.cuda_graph",
        "metrics.weights",
    ),
    *("tracking.trackers", "tracking.project", "training.max_minutes", "training.keep_checkpoints"),
    *(f"training.{name}_every" for name in ("checkpoint", "log", "sample", "evaluate")),
}


def checkpoint(task: Task, state: State) -> None:
    """Write what a resume needs, and the network for use; called on all processes, written by the first.

    Raises:
        DivergedError: if a weight isn't finite; the last good checkpoint stays.
        CheckpointError: if it can't be written.
    """
    session = task.session
    kept: list[Any] = [value for module in task.modules.values() for value in module.state_dict().values()]
    kept += [value for each in task.optimizers.values() for s in each.state.values() for value in s.values()]
    if not all(bool(torch.isfinite(value).all()) for value in kept if isinstance(value, torch.Tensor)):
        raise DivergedError(
            f"step {state.step}: weights are not finite, and no checkpoint is written over the last good one."
        )
    if session.is_main:
        # First, since a resume from the checkpoint repeats only what comes after it.
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


def resume(task: Task) -> State:
    """Put the checkpoint that was asked for into the task; a new state if there is none.

    Raises:
        ConfigError: for a checkpoint of another recipe (with the differences), or one that would be overwritten.
        CheckpointError: for one that is damaged; nothing is changed then.
    """
    session = task.session
    config, folder = session.config, session.folder
    found = list_checkpoints(folder.checkpoints)
    if config.resume == "never" and found:
        raise ConfigError(f"{folder.path} holds a run: give another --output_dir, or --resume=auto to go on with it.")
    if not found and (folder.scores.exists() or any(row["step"] > 0 for row in read_lines(folder.metrics))):
        raise ConfigError(
            f"{folder.path} holds a run whose checkpoints are gone, and a new one would write over its results: give "
            "another --output_dir, or remove the folder."
        )
    if config.resume == "never" or (config.resume == "auto" and not found):
        return State()
    path = found[-1] if config.resume == "auto" else Path(config.resume)
    tensors, stored = read_checkpoint(path)
    _refuse_changes(task, path, stored)
    restore(tensors, stored, task.modules, task.optimizers)
    if session.is_main and stored["machine"] != session.machine:
        print(
            f"note: {path} was written with {stored['machine']}, and this is {session.machine}: the run goes on, but "
            "rounds in its own way from here.",
            file=sys.stderr,
        )
    step = int(stored["step"])
    metrics = _history(stored["metrics"], read_lines(folder.metrics), step)
    session.accelerator.wait_for_everyone()  # all have read before anything moves
    if session.is_main:
        abandon_after(folder.checkpoints, step)
    return State(step, Losses(stored["losses"]), metrics)


def _refuse_changes(task: Task, path: Path, stored: dict[str, Any]) -> None:
    config = task.session.config
    free = FREE_ON_RESUME if config.scheduled else FREE_ON_RESUME | {"training.steps"}
    changed = [line for line in differences(stored["config"], config) if line.split(":")[0] not in free]
    changed = [f"{line} (a schedule depends on it)" if line.startswith("training.steps:") else line for line in changed]
    before, now = stored["circumstances"], task.circumstances
    changed += [f"{key}: {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]]
    if changed:
        raise ConfigError(
            f"{path} belongs to another recipe; changed since: {'; '.join(changed)}. Give another --output_dir to "
            "start anew."
        )


def _history(stored: list[Row], written: list[Row], step: int) -> list[Row]:
    """Evaluations up to ``step``. The one at ``step`` itself came after the checkpoint: only the file has it."""
    return stored + [row for row in written if row["step"] == step and row not in stored]
