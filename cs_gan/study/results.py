"""Means and standard errors of the scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cs_gan.names import nearest_or_all
from cs_gan.report.groups import mean_and_error
from cs_gan.report.page import with_spread
from cs_gan.study.outcome import BEST, Outcome, read_outcome
from cs_gan.study.plan import Point, Run, list_points
from cs_gan.study.spec import Study


@dataclass(frozen=True)
class Entry:
    """A point and the outcomes of its runs, by seed."""

    point: Point
    outcomes: dict[int, Outcome]

    def values(self, score: str) -> dict[int, float]:
        """Seed -> score, for finished runs. A score that is not finite is left out; :attr:`problems` says so."""
        scores = {seed: run.scores[score] for seed, run in self.outcomes.items() if score in run.scores}
        return {seed: value for seed, value in scores.items() if math.isfinite(value)}

    def count(self, status: str) -> int:
        """How many runs stand so."""
        return sum(run.status == status for run in self.outcomes.values())

    @property
    def seconds(self) -> float | None:
        """The mean duration of finished runs."""
        done = [run.seconds for run in self.outcomes.values() if run.status == "done" and run.seconds is not None]
        return mean_and_error(done)[0]

    def complete(self, score: str) -> bool:
        """Whether every seed is done and has this score, finite."""
        return len(self.values(score)) == len(self.outcomes)

    @property
    def problems(self) -> list[str]:
        """``seed 1: error: ...``; seeds with the same text are combined."""
        seeds_of: dict[str, list[int]] = {}
        for seed, run in self.outcomes.items():
            if run.status != "done":
                how_far = f"step {run.step} of {run.steps}" if run.step is not None and run.steps else ""
                reason = ", ".join(filter(None, (run.reason, how_far)))
                seeds_of.setdefault(f"{run.status}{': ' if reason else ''}{reason}", []).append(seed)
            for name, value in run.scores.items():
                if not math.isfinite(value) and not name.startswith(BEST):
                    seeds_of.setdefault(f"left out of {name}, which is {value:g}", []).append(seed)
        return [f"seed {', '.join(map(str, seeds))} {problem}" for problem, seeds in seeds_of.items()]


@dataclass(frozen=True)
class Results:
    """The entries of all points and the scores to report; the first is the main score."""

    study: Study
    entries: list[Entry]
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
        return self.study.keys

    def total(self, status: str) -> int:
        """How many runs stand so."""
        return sum(entry.count(status) for entry in self.entries)


def read_results(study: Study, runs: Sequence[Run]) -> Results:
    """Read the results from the run folders."""
    return collected(study, runs, [judged(read_outcome(run), study) for run in runs])


def collected(study: Study, runs: Sequence[Run], outcomes: Sequence[Outcome]) -> Results:
    """Build the results from runs and their outcomes."""
    by_point: dict[str, dict[int, Outcome]] = {}
    for run, outcome in zip(runs, outcomes, strict=True):
        by_point.setdefault(run.point.slug, {})[run.seed] = outcome
    entries = [Entry(point, by_point[point.slug]) for point in list_points(study)]
    done = [outcome for entry in entries for outcome in entry.outcomes.values() if outcome.status == "done"]
    primary = done[0].primary if done else ""
    scores = study.scores or ([primary] if primary else [])
    known = done[0].better if done and scores[:1] in ([primary], [f"{BEST}{primary}"]) else ""
    return Results(
        study, entries, scores, study.better or known, sorted({outcome.scored_on for outcome in done} - {""})
    )


def judged(outcome: Outcome, study: Study) -> Outcome:
    """A run without a requested score counts as failed."""
    missing = [name for name in study.scores if outcome.status == "done" and name not in outcome.scores]
    if not missing:
        return outcome
    hint = nearest_or_all(missing[0], outcome.scores, repr)
    reason = f"score: {missing[0]!r} is not among its scores. {hint}"
    return replace(outcome, status="failed", reason=reason, scores={})


@dataclass(frozen=True)
class Cell:
    """The mean over points and seeds of several entries, and its standard error over seeds."""

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
        return with_spread(self.mean, self.error)


def by_strength(results: Results) -> tuple[str, dict[str, dict[float, Entry]]]:
    """The last part of the one key that cases vary, and case -> value -> entry, by rising values.

    Empty unless two cases or more vary one number above 0 each, under keys with the same last part.
    """
    found = [(*next(iter(e.point.varied.items())), e) for e in results.entries if len(e.point.varied) == 1]
    names = {key.rpartition(".")[2] for key, _, _ in found}
    numeric = all(type(value) in (int, float) and value > 0 for _, value, _ in found)
    if len(names) != 1 or not numeric or len({entry.point.case for _, _, entry in found}) < 2:
        return "", {}
    curves: dict[str, dict[float, Entry]] = {entry.point.case: {} for _, _, entry in found}
    for _, value, entry in sorted(found, key=lambda one: one[1]):
        curves[entry.point.case][value] = entry
    return names.pop(), curves


def average(entries: Sequence[Entry], score: str) -> Cell:
    """Each seed's mean over the entries is one value; their spread gives the standard error."""
    by_seed: dict[int, list[float]] = {}
    for entry in entries:
        for seed, value in entry.values(score).items():
            by_seed.setdefault(seed, []).append(value)
    mean, _ = mean_and_error([value for values in by_seed.values() for value in values])
    _, error = mean_and_error([float(np.mean(values)) for values in by_seed.values()])
    return Cell(mean, error, bool(entries) and all(entry.complete(score) for entry in entries))


@dataclass(frozen=True)
class Best:
    """The chosen point of a group, and the number of points it was chosen from."""

    group: Any
    entry: Entry
    tried: int
    left_out: int  # points with a missing run or score, which can't be chosen


def best_of(results: Results) -> list[Best]:
    """The best point of every group by its mean. Only points with all seeds are compared."""
    groups: dict[str, list[Entry]] = {}
    for entry in results.entries:
        groups.setdefault(str(entry.point.value(results.study.group_by)), []).append(entry)
    sign = 1 if results.better == "higher" else -1
    chosen = []
    for entries in groups.values():
        complete = [entry for entry in entries if entry.complete(results.score)]
        if complete and results.better:
            best = max(complete, key=lambda entry: sign * (average([entry], results.score).mean or 0.0))
            chosen.append(
                Best(best.point.value(results.study.group_by), best, len(complete), len(entries) - len(complete))
            )
    return chosen
