"""The averaged generator, which sampling and scoring use."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def averaged(generator: nn.Module, decay: float = 0.999) -> AveragedModel:
    """An exponential moving average of a generator's weights and of its batch-norm statistics.

    Early averages would be dominated by the initial weights, so the decay after t updates is
    min(decay, (1 + t) / (10 + t)), as in TensorFlow's ``ExponentialMovingAverage``; the first update copies. Call
    ``update_parameters`` after each step. ``module`` is the averaged network.

    Raises:
        ValueError: for a decay outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay={decay} must be in [0, 1): 0 follows the weights, 0.999 is usual.")
    return _Averaged(generator, decay)


class _Averaged(AveragedModel):
    """torch's own update reads its counter on the host. This one leaves it on the device."""

    n_averaged: torch.Tensor

    def __init__(self, generator: nn.Module, decay: float) -> None:
        super().__init__(generator, use_buffers=True)
        self.decay = decay
        self.to(next(generator.parameters()).device)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average with the model's weights and buffers."""
        count = self.n_averaged.to(torch.float32)
        share = (9 / (10 + count)).clamp_min(1 - self.decay).masked_fill(count == 0, 1.0)  # of the new weights
        pairs = list(zip(_state(self.module), _state(model), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        for dtype in {average.dtype for average, _ in floats}:
            averages = [average for average, _ in floats if average.dtype == dtype]
            current = [value for average, value in floats if average.dtype == dtype]
            torch._foreach_mul_(averages, (1 - share).to(dtype))
            torch._foreach_add_(averages, torch._foreach_mul(current, share.to(dtype)))
        for average, value in pairs:
            if not average.is_floating_point():  # counters, such as batch norm's number of batches
                average.copy_(value)
        self.n_averaged.add_(1)


def _state(network: nn.Module) -> list[torch.Tensor]:
    return [*(parameter.detach() for parameter in network.parameters()), *network.buffers()]
