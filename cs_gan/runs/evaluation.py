"""The scores of a network at a step, and which of them is best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cs_gan.flat_keys import flatten
from cs_gan.runs.lines import readable_lines


@dataclass(frozen=True)
class Evaluation:
    """One line of ``metrics.jsonl``; ``provenance`` is flat, ``a.b`` for b inside a.

    ``untrained`` is whether it came before the first step or during the recipe's warm-up, ``extra`` whether the recipe
    doesn't ask for it: a time limit ended the run there.
    """

    step: int
    scores: dict[str, float]
    primary: str  # one of the scores
    better: str  # lower or higher
    provenance: dict[str, Any]
    untrained: bool = False
    extra: bool = False


def evaluation_of(row: Mapping[str, Any]) -> Evaluation | None:
    """The evaluation that a line holds; None without a finite score."""
    scores, provenance = row.get("scores"), row.get("provenance")
    if not isinstance(scores, dict):
        return None
    numbers = {str(name): float(value) for name, value in scores.items() if is_number(value)}
    if not numbers:
        return None
    primary = row["primary"] if row.get("primary") in numbers else next(iter(numbers))
    better = "higher" if row.get("better") == "higher" else "lower"
    about = flatten(provenance) if isinstance(provenance, dict) else {}
    untrained = row["step"] == 0 or row.get("untrained") is True
    return Evaluation(row["step"], numbers, primary, better, about, untrained, extra=row.get("extra") is True)


def read_evaluations(path: Path) -> list[Evaluation]:
    """The evaluations with a score in a ``metrics.jsonl``, in the order of their steps."""
    by_step: dict[int, Evaluation] = {}
    for row in readable_lines(path):
        if evaluation := evaluation_of(row):
            by_step[evaluation.step] = evaluation  # a resume may have written a step twice: the later line counts
    return [by_step[step] for step in sorted(by_step)]


def best(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """The earliest evaluation with the best primary score, among those with the same kind of score as the last.

    An untrained network is never best: grey noise can score better than the first samples. None if all are untrained.
    An extra evaluation is the best only if there is no other, so that a time limit doesn't change the choice.
    """
    if not evaluations:
        return None
    name, sign = evaluations[-1].primary, -1 if evaluations[-1].better == "higher" else 1
    candidates = [evaluation for evaluation in evaluations if name in evaluation.scores and not evaluation.untrained]
    candidates = [evaluation for evaluation in candidates if not evaluation.extra] or candidates
    return min(candidates, key=lambda evaluation: sign * evaluation.scores[name], default=None)


def is_number(value: object) -> bool:
    """Whether a value from a file is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
