"""Ratio N/K and penalty weight over training, as functions of progress in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

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


class Schedules:
    """Ratio and weight as training goes on, and which steps observe.

    Args:
        ratio, weight: constants or schedules.
        every: observe on every m-th step.
    """

    def __init__(self, ratio: Schedule, weight: Schedule, every: int) -> None:
        self._ratio, self._weight, self._every = ratio, weight, every
        self.step: tuple[int, int] | None = None
        self._factors: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def set_step(self, step: int, total: int) -> None:
        """Say where training stands.

        Raises:
            CodeError: for a negative step or a total below 1.
        """
        if total < 1 or step < 0:
            raise CodeError(f"set_step({step}, {total}): step counts from 0 and total from 1.")
        self.step = (step, total)
        for factor in self._factors.values():
            factor.fill_(self.weight * self._every)

    @property
    def ratio(self) -> float:
        """N/K now."""
        return self._now("ratio", self._ratio)

    @property
    def weight(self) -> float:
        """The penalty's weight now, without the factor ``every``."""
        return self._now("weight", self._weight)

    @property
    def due(self) -> bool:
        """Whether this step observes (always, unless ``every`` is above 1)."""
        if self._every == 1:
            return True
        if self.step is None:
            raise CodeError(f"every={self._every} needs the step: call coded.set_step(step, total) once per step.")
        return self.step[0] % self._every == 0

    def factor(self, total: Tensor) -> Tensor | float:
        """What multiplies a penalty: weight times ``every``.

        A schedule's is a tensor beside ``total``: a CUDA graph reads it where :meth:`set_step` writes it.
        """
        if not callable(self._weight):
            return self._weight * self._every
        where = total.device, total.dtype
        if where not in self._factors:
            self._factors[where] = torch.tensor(self.weight * self._every, device=total.device, dtype=total.dtype)
        return self._factors[where]

    def _now(self, name: str, schedule: Schedule) -> float:
        if callable(schedule) and self.step is None:
            raise CodeError(f"{name} is a schedule: call coded.set_step(step, total) once per step.")
        step, total = self.step or (0, 1)
        return value_at(schedule, step / total)
