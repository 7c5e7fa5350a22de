"""One update of the weights, from one backward or from several: gradient accumulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from cs_gan.errors import ConfigError

MicroBatch = tuple[int, int]
Backward = Callable[[Tensor], Any]
"""Differentiates a loss, as ``accelerator.backward`` does."""
StepLosses = dict[str, Tensor]
"""The losses of one step by name, detached scalars."""

_accumulating: WeakSet[torch.optim.Optimizer] = WeakSet()
"""Accelerate's optimisers whose gradients wait for more micro-batches."""


class Update:
    """The part of an update that one step computes. Gradients start from None, and the weights change at its end.

    A large batch can be split into micro-batches, one call of the step for each. Two ways say so:

    - ``micro_batch=(i, n)``: the gradient of the mean of the n losses is used. The first call clears the gradients, and
      the last changes the weights.
    - Hugging Face Accelerate, inside ``accelerator.accumulate(...)``, with the optimiser that ``prepare`` gave. It
      divides the loss and decides which call changes the weights. Gradients are cleared at the first call after that
      one. Accelerate's own ``zero_grad`` before the backward would keep only those of the last micro-batch.

    Args:
        call: the step, for the error message.
        optimizer: of torch, or wrapped by Accelerate.
        micro_batch: (i, n): the i-th of n, from 1.

    Raises:
        ConfigError: for another micro_batch than (1, 1) to (n, n), or if both ways are used.
    """

    def __init__(self, call: str, optimizer: torch.optim.Optimizer, micro_batch: MicroBatch) -> None:
        number, self._count = micro_batch
        self._optimizer, self._last = optimizer, number == self._count
        # An AcceleratedOptimizer knows whether this is the call that changes the weights.
        self._accelerate = getattr(optimizer, "gradient_state", None)
        if not 1 <= number <= self._count:
            raise ConfigError(f"{call}(micro_batch={micro_batch}): give (i, n), from (1, n) to (n, n).")
        if self._count > 1 and self._accelerate is not None and self._accelerate.num_steps > 1:
            raise ConfigError(
                f"{call}(micro_batch={micro_batch}) with an optimiser of Accelerate that accumulates over "
                f"{self._accelerate.num_steps}: the loss would be divided twice. Leave micro_batch out."
            )
        if number == 1 and optimizer not in _accumulating:
            # The wrapper's zero_grad does nothing while it accumulates.
            bare: Any = optimizer if self._accelerate is None else optimizer.optimizer  # type: ignore[attr-defined]
            bare.zero_grad(set_to_none=True)

    def backward(self, differentiate: Backward, loss: Tensor) -> None:
        """Add this micro-batch's share of the gradients."""
        differentiate(loss if self._count == 1 else loss / self._count)

    def finish(self) -> None:
        """Change the weights, unless more micro-batches follow."""
        if not self._last:
            return
        self._optimizer.step()
        if self._accelerate is not None:
            change = _accumulating.discard if self._accelerate.sync_gradients else _accumulating.add
            change(self._optimizer)
