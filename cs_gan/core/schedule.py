"""Ratio N/K and penalty weight over training, as functions of progress in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from cs_gan.errors import CodeError

Schedule = float | Callable[[float], float]


@dataclass(frozen=True)
class Linear:
    """``start`` at progress 0, ``end`` from progress ``until`` on, a straight line between.

    The paper's N, growing from K to 1.5 K over training, is ``Linear(1.0, 1.5)``. With ``levels`` it is a stair of
    so many values, ``start`` and ``end`` among them, each held equally long; ``end`` is then reached one level
    before ``until``. A ratio that moves through few values asks for few codes (and CUDA graphs).

    Raises:
        CodeError: for fewer than 2 levels.
    """

    start: float
    end: float
    until: float = 1.0
    levels: int | None = None

    def __post_init__(self) -> None:
        if self.levels is not None and self.levels < 2:
            raise CodeError(f"Linear(..., levels={self.levels}): start and end are 2 levels; None is a straight line.")

    def __call__(self, progress: float) -> float:
        """The value at ``progress``."""
        fraction = 1.0 if self.until <= 0 else min(max(progress / self.until, 0.0), 1.0)
        if self.levels is not None:
            # 29 of 100 steps are 0.29, and 0.29 * 100 is a little less than 29.
            level = min(math.floor(fraction * self.levels + 1e-9), self.levels - 1)
            fraction = level / (self.levels - 1)
        return self.start + (self.end - self.start) * fraction


def value_at(schedule: Schedule, progress: float) -> float:
    """The value of a constant or of a schedule at ``progress``."""
    return schedule(progress) if callable(schedule) else schedule
