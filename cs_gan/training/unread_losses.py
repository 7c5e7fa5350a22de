"""Losses of the last steps. They stay on the device until they are read."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class UnreadLosses:
    """Scalars by name, step after step.

    Reading a number from a GPU waits for all work before it. So a step's losses stay on the device, and :meth:`unread`
    returns all of them at once, to be read together.

    Attributes:
        values: the losses read since the last :meth:`take`, by name.
    """

    def __init__(self, values: dict[str, list[float]] | None = None) -> None:
        self.values: dict[str, list[float]] = {} if values is None else values
        self._unread: list[tuple[int, list[str], Tensor]] = []

    def add(self, step: int, losses: dict[str, Tensor]) -> None:
        """Copy the losses of one step."""
        stacked = torch.stack([value.detach().to(torch.float32) for value in losses.values()])
        self._unread.append((step, list(losses), stacked))

    def unread(self) -> Tensor:  # (n,)
        """All losses that were not read yet, on the device."""
        return torch.cat([stacked for *_, stacked in self._unread])

    def accept(self, numbers: list[float]) -> list[tuple[int, str]]:
        """Take the numbers from :meth:`unread`, now read and averaged over processes.

        Returns:
            Step and name of the losses that aren't finite.
        """
        names = [(step, name) for step, names, _ in self._unread for name in names]
        self._unread.clear()
        for (_, name), value in zip(names, numbers, strict=True):
            self.values.setdefault(name, []).append(value)
        return [where for where, value in zip(names, numbers, strict=True) if not math.isfinite(value)]

    def take(self) -> dict[str, float]:
        """The mean of each loss since the last call."""
        means = {name: sum(values) / len(values) for name, values in self.values.items()}
        self.values = {}
        return means
