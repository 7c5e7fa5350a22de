"""Compare runs of a case with runs of the baseline of the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cs_gan.report.groups import mean_and_error
from cs_gan.sweep.plan import text
from cs_gan.sweep.results import Cell, Results, Row


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


def differences(results: Results, row: Row) -> dict[str, Difference] | None:
    """Score -> the difference to the baseline. None for the baseline's own points and without a baseline."""
    if not results.sweep.baseline or row.point.case == results.sweep.baseline:
        return None
    other = _counterpart(results, row)
    found = {}
    for score in results.scores:
        mine, theirs = row.values(score), other.values(score)
        found[score] = Difference({seed: mine[seed] - theirs[seed] for seed in mine if seed in theirs})
    return found


def compared(results: Results) -> list[tuple[Row, dict[str, Difference]]]:
    """All rows that have a difference."""
    pairs = [(row, differences(results, row)) for row in results.rows]
    return [(row, found) for row, found in pairs if found is not None]


def _counterpart(results: Results, row: Row) -> Row:
    """The baseline's point with the same values of the settings that vary in both. The file's check ensures one."""
    rows = [other for other in results.rows if other.point.case == results.sweep.baseline]
    return next(other for other in rows if _agree(rows, other, row))


def _agree(rows: Sequence[Row], other: Row, row: Row) -> bool:
    varied = other.point.varied
    keys = [key for key in varied if len({text(each.point.varied[key]) for each in rows}) > 1]
    return all(text(row.point.varied[key]) == text(varied[key]) for key in keys)
