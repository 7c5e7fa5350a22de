"""Ratio N/K and penalty weight over training, as functions of progress in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Schedule = float | Callable[[float], float]


@dataclass(frozen=True)
class Linear:
    """``start`` at progress 0, ``end`` from progress ``until`` on, a straight line between.

    The paper's N, growing from K to 1.5 K over training, is ``Linear(1.0, 1.5)``.
    """

    start: float
    end: float
    until: float = 1.0

    def __call__(self, progress: float) -> float:
        """The value at ``progress``."""
        fraction = 1.0 if self.until <= 0 else min(max(progress / self.until, 0.0), 1.0)
        return self.start + (self.end - self.start) * fraction


def value_at(schedule: Schedule, progress: float) -> float:
    """The value of a constant or of a schedule at ``progress``."""
    return schedule(progress) if callable(schedule) else schedule
