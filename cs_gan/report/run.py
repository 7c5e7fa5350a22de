"""A run folder as a report sees it. Missing or incomplete parts are left out, never guessed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cs_gan.errors import DataError
from cs_gan.nested import flatten

# A folder with any of these is a run. A report shows those that exist.
PARTS = ("config.yaml", "log.jsonl", "metrics.jsonl", "grids", "grid.png")


@dataclass(frozen=True)
class Evaluation:
    """One line of ``metrics.jsonl``; ``provenance`` is flat, ``a.b`` for b inside a."""

    step: int
    scores: dict[str, float]
    primary: str  # one of the scores
    better: str  # lower or higher
    provenance: dict[str, Any]


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
    if not any((path / part).exists() for part in PARTS):
        raise DataError(f"{path} contains none of {', '.join(PARTS)}: give the folder of a run.")
    text = _read_text(path / "config.yaml")
    evaluations = read_evaluations(path / "metrics.jsonl")
    return Run(
        path,
        config=flatten(_parse_config(text)),
        config_text=text,
        log=read_lines(path / "log.jsonl"),
        evaluations=evaluations,
        grids=_find_grids(path),
        full=_read_full(path / "scores.json", evaluations),
    )


def command_of(run: Run) -> str:
    """What started the run, as the first line of its config.yaml tells; nothing where it doesn't."""
    first = run.config_text.partition("\n")[0]
    return first.removeprefix("# ") if first.startswith("# ") else ""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a ``.jsonl`` file that have a step; none if there is no file.

    Unreadable lines are skipped, because a kill can leave the last one incomplete.
    """
    lines = []
    for text in _read_text(path).splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


def read_evaluations(path: Path) -> list[Evaluation]:
    """The evaluations with a score in a ``metrics.jsonl``, in the order of their steps."""
    found: dict[int, Evaluation] = {}
    for line in read_lines(path):
        evaluation = _evaluation(line)
        if evaluation:
            found[evaluation.step] = evaluation  # a resume may have written a step twice: the later line counts
    return [found[step] for step in sorted(found)]


def best(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """The earliest evaluation with the best primary score, among those with the same kind of score as the last."""
    if not evaluations:
        return None
    name, sign = evaluations[-1].primary, -1 if evaluations[-1].better == "higher" else 1
    return min((one for one in evaluations if name in one.scores), key=lambda one: sign * one.scores[name])


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


def is_number(value: object) -> bool:
    """Whether a value from a file can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _read_text(path: Path) -> str:
    # A kill may cut a line inside a character, so decoding must not fail.
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _evaluation(line: dict[str, Any]) -> Evaluation | None:
    scores, provenance = line.get("scores"), line.get("provenance")
    if not isinstance(scores, dict):
        return None
    numbers = {str(name): float(value) for name, value in scores.items() if is_number(value)}
    if not numbers:
        return None
    primary = line["primary"] if line.get("primary") in numbers else next(iter(numbers))
    better = "higher" if line.get("better") == "higher" else "lower"
    return Evaluation(
        line["step"], numbers, primary, better, flatten(provenance) if isinstance(provenance, dict) else {}
    )


def _read_full(path: Path, curve: Sequence[Evaluation]) -> dict[str, Evaluation]:
    """``scores.json``, unless the run continued after it was written."""
    try:
        told = json.loads(_read_text(path))
        # The best is missing if its network was lost with an abandoned checkpoint.
        keys = [key for key in ("final", "best") if key in told]
        found = {key: _evaluation(told[key] | {"step": int(told[key]["step"])}) for key in keys}
    except (ValueError, TypeError, KeyError):
        return {}
    full = {key: evaluation for key, evaluation in found.items() if evaluation is not None}
    outdated = "final" not in full or (curve and full["final"].step < curve[-1].step)
    return {} if outdated else full


def _parse_config(text: str) -> dict[Any, Any]:
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return config if isinstance(config, dict) else {}


def _find_grids(path: Path) -> list[tuple[int | None, Path]]:
    found: list[tuple[int, Path]] = []
    for file in (path / "grids").glob("step-*.png"):
        match = re.fullmatch(r"step-(\d+)\.png", file.name)
        if match:
            found.append((int(match[1]), file))
    if found:
        return list(sorted(found))
    return [(None, path / "grid.png")] if (path / "grid.png").is_file() else []
