"""Schedules for the ratio N/K and the penalty weight, as functions of progress in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from cs_gan.core.share import HeldShare
from cs_gan.errors import CodeError

Schedule = float | Callable[[float], float]


@dataclass(frozen=True)
class Linear:
    """A straight line from ``start`` at progress 0 to ``end`` at progress ``until``, then constant.

    In the paper N grows from K to 1.5 K during training: ``Linear(1.0, 1.5)``. With ``levels`` the schedule has steps:
    this many values from ``start`` to ``end``, each for an equal share of the time until ``until``. A ratio with few
    values needs few codes (and CUDA graphs).

    Raises:
        CodeError: for values that are no finite numbers, or fewer than 2 levels.
    """

    start: float
    end: float
    until: float = 1.0
    levels: int | None = None

    def __post_init__(self) -> None:
        if not all(_is_number(value) and math.isfinite(value) for value in (self.start, self.end, self.until)):
            raise CodeError(f"{self}: start, end and until must be finite numbers.")
        if self.levels is not None and self.levels < 2:
            raise CodeError(f"Linear(..., levels={self.levels}): start and end are 2 levels; None is a straight line.")

    def __call__(self, progress: float) -> float:
        """The value at ``progress``."""
        fraction = 1.0 if self.until <= 0 else min(max(progress / self.until, 0.0), 1.0)
        if self.levels is not None:
            # 1e-9 against rounding: 0.29 * 100 is a little less than 29.
            level = min(math.floor(fraction * self.levels + 1e-9), self.levels - 1)
            fraction = level / (self.levels - 1)
        return self.start + (self.end - self.start) * fraction


LARGEST_RATIO = 1000.0  # N = 1000 K is far beyond any use, and its matrices still fit into memory


def checked_ratio(ratio: Any) -> float:
    """N/K as a number.

    Raises:
        CodeError: unless it is a number above 0 and not above ``LARGEST_RATIO``.
    """
    if not _is_number(ratio) or not 0 < ratio <= LARGEST_RATIO:
        raise CodeError(
            f"ratio={ratio!r}: N/K must be a number above 0, at most {LARGEST_RATIO:g}, or a schedule of it."
        )
    return float(ratio)


def checked_weight(weight: Any) -> float:
    """A weight as a number.

    Raises:
        CodeError: unless it is a finite number of at least 0.
    """
    if not _is_number(weight) or not 0 <= weight < math.inf:
        raise CodeError(
            f"weight={weight!r}: the penalty's weight must be a finite number of at least 0, or a schedule."
        )
    return float(weight)


def checked_multiple(multiple: Any) -> int:
    """What N is a multiple of.

    Raises:
        CodeError: unless it is a whole number of at least 1.
    """
    if not isinstance(multiple, Integral) or isinstance(multiple, bool) or multiple < 1:
        raise CodeError(f"multiple={multiple!r}: N is rounded to a multiple of a whole number of at least 1.")
    return int(multiple)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


class Schedules:
    """The current ratio and weight, and which steps observe.

    Args:
        ratio: a constant or a schedule.
        weight: a constant, a schedule or a :class:`HeldShare`.
        every: observe on every m-th step.

    Raises:
        CodeError: for values that are no ratio or weight.
    """

    def __init__(self, ratio: Schedule, weight: Schedule | HeldShare, every: int) -> None:
        if not _is_number(every) or every != int(every) or every < 1:
            raise CodeError(f"every={every!r}: observe every m-th step needs a whole m of at least 1.")
        self._ratio = ratio if callable(ratio) else checked_ratio(ratio)
        self._weight = weight if callable(weight) else checked_weight(weight)
        self._every = every
        self.step: tuple[int, int] | None = None
        self._factors: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def set_step(self, step: int, total: int, hold_end: bool = False) -> None:
        """Set the current step and the total number of steps.

        Raises:
            CodeError: for a negative step, a total below 1, or a step beyond the total without ``hold_end``.
        """
        if (
            not (_is_number(step) and _is_number(total))
            or not total >= 1
            or not step >= 0
            or (step > total and not hold_end)
        ):
            raise CodeError(
                f"set_step({step!r}, {total!r}): step counts from 0 to the total number of steps, and total from 1. "
                "If schedules should stay at their end beyond it, say hold_end=True."
            )
        self.step = (step, total)
        for factor in self._factors.values():
            factor.fill_(self.weight * self._every)

    @property
    def ratio(self) -> float:
        """N/K now."""
        return checked_ratio(self._now("ratio", self._ratio))

    @property
    def weight(self) -> float:
        """The penalty's weight now, without the factor ``every``."""
        if isinstance(self._weight, HeldShare):
            return self._weight.weight.item()
        return checked_weight(self._now("weight", self._weight))

    @property
    def due(self) -> bool:
        """Whether this step observes (always, unless ``every`` is above 1)."""
        if self._every == 1:
            return True
        if self.step is None:
            raise CodeError(f"every={self._every} needs the step: call coded.set_step(step, total) once per step.")
        return self.step[0] % self._every == 0

    def factor(self, total: Tensor) -> Tensor | float:
        """The factor of a penalty: weight times ``every``.

        For a schedule it is a tensor on the device of ``total``, so a captured CUDA graph reads the value that
        :meth:`set_step` writes. A :class:`HeldShare` has such a tensor itself.
        """
        if isinstance(self._weight, HeldShare):
            return self._weight.of_penalty() * self._every
        if not callable(self._weight):
            return self._weight * self._every
        where = total.device, total.dtype
        if where not in self._factors:
            with torch.inference_mode(False):  # set_step() writes into it later
                self._factors[where] = torch.tensor(self.weight * self._every, device=total.device, dtype=total.dtype)
        return self._factors[where]

    def _now(self, name: str, schedule: Schedule) -> float:
        if not callable(schedule):
            return schedule
        if self.step is None:
            raise CodeError(f"{name} is a schedule: call coded.set_step(step, total) once per step.")
        step, total = self.step
        return schedule(min(step / total, 1.0))
