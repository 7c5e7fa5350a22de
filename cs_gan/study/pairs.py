"""Compare runs of a case with runs of the baseline of the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cs_gan.report.groups import mean_and_error
from cs_gan.study.plan import text
from cs_gan.study.results import Cell, Entry, Results


@dataclass(frozen=True)
class Difference:
    """A point minus the baseline's point, by seed, for seeds that both have."""

    by_seed: dict[int, float]

    @property
    def cell(self) -> Cell:
        """Mean and standard error over seeds."""
        values = list(self.by_seed.values())
        return Cell(*mean_and_error(values), complete=bool(values))

    @property
    def p(self) -> float | None:
        """Two-sided p-value of the sign test; None without a difference.

        Seeds with equal scores have no sign and are left out. With n seeds the smallest value is 2 / 2^n: 0.25 for
        three seeds.
        """
        from scipy.stats import binomtest  # importing takes a second

        signs = [value > 0 for value in self.by_seed.values() if value != 0]
        return float(binomtest(sum(signs), len(signs)).pvalue) if signs else None


def differences(results: Results, entry: Entry) -> dict[str, Difference] | None:
    """Score -> the difference to the baseline. None for the baseline's own points and without a baseline."""
    if not results.study.baseline or entry.point.case == results.study.baseline:
        return None
    baseline = _counterpart(results, entry)
    by_score = {}
    for score in results.scores:
        values, base = entry.values(score), baseline.values(score)
        by_score[score] = Difference({seed: values[seed] - base[seed] for seed in values if seed in base})
    return by_score


def compared(results: Results) -> list[tuple[Entry, dict[str, Difference]]]:
    """All entries that have a difference."""
    pairs = [(entry, differences(results, entry)) for entry in results.entries]
    return [(entry, by_score) for entry, by_score in pairs if by_score is not None]


def _counterpart(results: Results, entry: Entry) -> Entry:
    """The baseline's point with the same values of the settings that vary in both. The file's check ensures one."""
    entries = [other for other in results.entries if other.point.case == results.study.baseline]
    return next(other for other in entries if _agree(entries, other, entry))


def _agree(entries: Sequence[Entry], other: Entry, entry: Entry) -> bool:
    varied = other.point.varied
    keys = [key for key in varied if len({text(at_baseline.point.varied[key]) for at_baseline in entries}) > 1]
    return all(text(entry.point.varied[key]) == text(varied[key]) for key in keys)
