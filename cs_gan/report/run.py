"""Read a run folder for a report. Missing and incomplete parts are left out, never guessed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cs_gan.errors import DataError
from cs_gan.flat_keys import flatten
from cs_gan.runs import Evaluation, RunFolder, best, evaluation_of, read_evaluations, read_text, readable_lines


@dataclass(frozen=True)
class Run:
    """Everything that a report shows about a run. ``config`` is flat; ``grids`` are in the order of their steps."""

    path: Path
    config: dict[str, Any]
    config_text: str
    log: list[dict[str, Any]]
    evaluations: list[Evaluation]
    grids: list[tuple[int | None, Path]]
    full: dict[str, Evaluation]  # full scores of final and best network at the end of the run; empty before
    data: dict[str, Any]  # name, path and number of the training images; empty in older runs

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def steps_done(self) -> int:
        """The newest step found in any file."""
        logged = [line["step"] for line in self.log] + [evaluation.step for evaluation in self.evaluations]
        return max([*logged, *(step for step, _ in self.grids if step is not None)], default=0)

    @property
    def last(self) -> Evaluation | None:
        """The full final scores, or the last of the curve."""
        return self.full.get("final") or (self.evaluations[-1] if self.evaluations else None)

    @property
    def best(self) -> Evaluation | None:
        """The full best scores, or the best of the curve."""
        return self.full.get("best") or best(self.evaluations)


def read_run(path: Path) -> Run:
    """Read a run folder in any state.

    Raises:
        DataError: if the folder contains no part of a run.
    """
    folder = RunFolder(path)
    parts = (folder.config, folder.log, folder.metrics, folder.grids, folder.grid)
    if not any(part.exists() for part in parts):
        names = ", ".join(part.name for part in parts)
        raise DataError(f"{path} contains none of {names}: give the folder of a run.")
    text = read_text(folder.config)
    evaluations = read_evaluations(folder.metrics)
    return Run(
        path,
        config=flatten(_parse_config(text)),
        config_text=text,
        log=readable_lines(folder.log),
        evaluations=evaluations,
        grids=_find_grids(folder),
        full=_read_full(folder.scores, evaluations),
        data=_read_table(folder.data),
    )


def command_of(run: Run) -> str:
    """The command that started the run, from the first line of its config.yaml. Empty if that line has none."""
    first = run.config_text.partition("\n")[0]
    return first.removeprefix("# ") if first.startswith("# ") else ""


def score_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """Every score's name, the primary one first, without the standard deviations."""
    primary = [evaluation.primary for evaluation in evaluations]
    names = dict.fromkeys([*primary, *(name for evaluation in evaluations for name in evaluation.scores)])
    return [name for name in names if not name.endswith(" std")]


def shown(value: object) -> str:
    """A value from a file as text."""
    if isinstance(value, list) and value:
        return ", ".join(map(str, value))
    return "none" if value in (None, [], {}) else str(value)


def _read_full(path: Path, curve: Sequence[Evaluation]) -> dict[str, Evaluation]:
    """``scores.json``, unless the run continued after it was written."""
    try:
        rows = json.loads(read_text(path))
        # The best is missing if its network was lost with an abandoned checkpoint.
        keys = [key for key in ("final", "best") if key in rows]
        read = {key: evaluation_of(rows[key] | {"step": int(rows[key]["step"])}) for key in keys}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    full = {key: evaluation for key, evaluation in read.items() if evaluation is not None}
    outdated = "final" not in full or (curve and full["final"].step < curve[-1].step)
    return {} if outdated else full


def _read_table(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(read_text(path))
    except (ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def _parse_config(text: str) -> dict[Any, Any]:
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _find_grids(folder: RunFolder) -> list[tuple[int | None, Path]]:
    if grids := folder.grid_steps():
        return list(grids)
    return [(None, folder.grid)] if folder.grid.is_file() else []
