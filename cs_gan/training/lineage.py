"""The history of a run that its recipe does not show: it was extended, or started with the weights of another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cs_gan.errors import ConfigError
from cs_gan.training.recipes.sections import RunConfig

EXTENDED = "extended"


def extend(config: RunConfig, stored: dict[str, Any]) -> None:
    """Turn a recipe into that of a longer run which continues a stored one, and note this in ``config.history``.

    If no schedule depends on the number of steps, the result is the same as that of one long run, and nothing is noted.

    Args:
        config: the requested recipe, with the stored run's ``history``.
        stored: the state of the checkpoint.

    Raises:
        ConfigError: if it isn't longer, or its learning rate would stay at 0.
    """
    training, before = config.training, stored["config"]["training"]
    old, old_schedule = before["steps"], before.get("schedule_steps")
    held = config.extend == "hold"
    config.extend = "never"  # done: the saved recipe is the longer run's
    if not config.scheduled:
        return
    if training.schedule_steps not in (None, old_schedule):
        raise ConfigError("--extend sets training.schedule_steps: leave one of them out.")
    how = "held at their end" if held else "stretched over all steps"
    extensions = [note for note in config.history if note.startswith(EXTENDED)]
    if training.steps == old and extensions:  # the same command again, after a stop
        if how not in extensions[-1]:
            raise ConfigError(
                f"--extend={'hold' if held else 'stretch'}: the run was already {extensions[-1].partition(':')[0]}. "
                "Leave --extend out to resume it."
            )
        training.schedule_steps = old_schedule
        return
    if training.steps <= old:
        raise ConfigError(
            f"--extend: the run has {old} steps already. Give more than these in training.steps (or epochs)."
        )
    decay = getattr(training, "decay", "constant")
    if held and decay != "constant":
        raise ConfigError(
            f"--extend=hold keeps schedules at their end, and the learning rate ends at 0 (training.decay={decay}). "
            f"--extend=stretch spreads schedules over all {training.steps} steps: the learning rate rises again."
        )
    training.schedule_steps = (old_schedule or old) if held else None
    config.history.append(
        f"{EXTENDED} at step {stored['step']} from {old} steps to {training.steps}, schedules {how}: "
        "not one uninterrupted run"
    )


def began(path: Path, step: int, fresh: list[str]) -> str:
    """The note for a run that started with the weights of a checkpoint, without the parts in ``fresh``."""
    without = f", without {' and '.join(fresh)}" if fresh else ""
    # The run's name alone: a note like this leaves the machine with a model card.
    run = path.resolve().parents[1].name if path.parent.name == "checkpoints" else path.resolve().parent.name
    return f"began with the weights of {run}/{path.name} (step {step}){without}"
