"""Means and standard errors of the scores."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cs_gan.report.groups import mean_and_error
from cs_gan.sweep.outcome import BEST, Outcome, read_outcome
from cs_gan.sweep.plan import Point, Run, list_points
from cs_gan.sweep.spec import Sweep


@dataclass(frozen=True)
class Row:
    """A point and its runs, by seed."""

    point: Point
    outcomes: dict[int, Outcome]

    def values(self, score: str) -> dict[int, float]:
        """Seed -> score, for finished runs."""
        return {seed: one.scores[score] for seed, one in self.outcomes.items() if score in one.scores}

    def count(self, status: str) -> int:
        """How many runs stand so."""
        return sum(one.status == status for one in self.outcomes.values())

    @property
    def seconds(self) -> float | None:
        """The mean duration of finished runs."""
        done = [one.seconds for one in self.outcomes.values() if one.status == "done" and one.seconds is not None]
        return mean_and_error(done)[0]

    @property
    def complete(self) -> bool:
        """Whether every seed is done."""
        return self.count("done") == len(self.outcomes)

    @property
    def problems(self) -> list[str]:
        """``seed 1: error: ...``; seeds with the same text are combined."""
        told: dict[str, list[int]] = {}
        for seed, one in self.outcomes.items():
            if one.status != "done":
                how_far = f"step {one.step} of {one.steps}" if one.step is not None and one.steps else ""
                reason = ", ".join(filter(None, (one.reason, how_far)))
                told.setdefault(f"{one.status}{': ' if reason else ''}{reason}", []).append(seed)
        return [f"seed {', '.join(map(str, seeds))} {reason}" for reason, seeds in told.items()]


@dataclass(frozen=True)
class Results:
    """All rows and the scores to report; the first is the main score."""

    sweep: Sweep
    rows: list[Row]
    scores: list[str]
    better: str  # higher, lower, or empty if unknown
    scored_on: list[str]

    @property
    def score(self) -> str:
        """The main score; ``score`` if no run is done."""
        return self.scores[0] if self.scores else "score"

    @property
    def keys(self) -> list[str]:
        """Columns: the settings that vary."""
        return self.sweep.keys

    def total(self, status: str) -> int:
        """How many runs stand so."""
        return sum(row.count(status) for row in self.rows)


def read_results(sweep: Sweep, runs: Sequence[Run]) -> Results:
    """Read the results from the run folders."""
    return collected(sweep, runs, [judged(read_outcome(run), sweep) for run in runs])


def collected(sweep: Sweep, runs: Sequence[Run], told: Sequence[Outcome]) -> Results:
    """Build the results from runs and their outcomes."""
    outcomes: dict[str, dict[int, Outcome]] = {}
    for run, outcome in zip(runs, told, strict=True):
        outcomes.setdefault(run.point.slug, {})[run.seed] = outcome
    rows = [Row(point, outcomes[point.slug]) for point in list_points(sweep)]
    done = [one for row in rows for one in row.outcomes.values() if one.status == "done"]
    primary = done[0].primary if done else ""
    scores = sweep.scores or ([primary] if primary else [])
    known = done[0].better if done and scores[:1] in ([primary], [f"{BEST}{primary}"]) else ""
    return Results(sweep, rows, scores, sweep.better or known, sorted({one.scored_on for one in done} - {""}))


def judged(outcome: Outcome, sweep: Sweep) -> Outcome:
    """A run without a requested score counts as failed."""
    missing = [name for name in sweep.scores if outcome.status == "done" and name not in outcome.scores]
    if not missing:
        return outcome
    near = difflib.get_close_matches(missing[0], outcome.scores, n=1) or list(outcome.scores)
    reason = f"score: {missing[0]!r} is not among its scores. Did you mean {' or '.join(map(repr, near))}?"
    return replace(outcome, status="failed", reason=reason, scores={})


@dataclass(frozen=True)
class Cell:
    """The mean over points and seeds of several rows, and its standard error over seeds."""

    mean: float | None
    error: float | None
    complete: bool

    @property
    def signed(self) -> str:
        """The text of a difference: ``+0.52 ± 0.31``."""
        return f"+{self}" if self.mean is not None and self.mean > 0 else str(self)

    def __str__(self) -> str:
        """``95.12 ± 0.31``: with the decimals of an error of two significant digits."""
        if self.mean is None:
            return "—"
        if self.error is None:
            return f"{self.mean:.4g}"
        decimals = min(6, max(0, 1 - math.floor(math.log10(self.error)))) if self.error else 2
        return f"{self.mean:.{decimals}f} ± {self.error:.{decimals}f}"


def average(rows: Sequence[Row], score: str) -> Cell:
    """Each seed's mean over the rows is one value; their spread gives the standard error."""
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        for seed, value in row.values(score).items():
            by_seed.setdefault(seed, []).append(value)
    mean, _ = mean_and_error([value for values in by_seed.values() for value in values])
    _, error = mean_and_error([float(np.mean(values)) for values in by_seed.values()])
    return Cell(mean, error, bool(rows) and all(row.complete for row in rows))


@dataclass(frozen=True)
class Best:
    """The chosen point of a group, and the number of points it was chosen from."""

    group: Any
    row: Row
    tried: int
    left_out: int  # points with a missing run, which can't be chosen


def best_of(results: Results) -> list[Best]:
    """The best point of every group by its mean. Only points with all seeds are compared."""
    groups: dict[str, list[Row]] = {}
    for row in results.rows:
        groups.setdefault(str(row.point.value(results.sweep.group)), []).append(row)
    sign = 1 if results.better == "higher" else -1
    found = []
    for rows in groups.values():
        complete = [row for row in rows if row.complete]
        if complete and results.better:
            best = max(complete, key=lambda row: sign * (average([row], results.score).mean or 0.0))
            found.append(Best(best.point.value(results.sweep.group), best, len(complete), len(rows) - len(complete)))
    return found
