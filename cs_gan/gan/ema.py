"""The averaged generator, which sampling and scoring use."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(generator: nn.Module, decay: float = 0.999) -> AveragedModel:
    """An exponential moving average of a generator's weights and of its batch-norm statistics.

    Early averages would be dominated by the initial weights, so the decay after t updates is
    min(decay, (1 + t) / (10 + t)), as in TensorFlow's ``ExponentialMovingAverage``; the first update copies. Call
    ``update_parameters`` after each step; the averaged network is its ``module``.

    Raises:
        ValueError: for a decay outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay={decay} must be in [0, 1): 0 follows the weights, 0.999 is usual.")

    @torch.no_grad()
    def update(averages: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        warm = min(decay, (1 + int(count)) / (10 + int(count)))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, current, 1 - warm)
        else:  # counters, such as batch norm's number of batches
            torch._foreach_copy_(averages, current)

    return AveragedModel(generator, multi_avg_fn=update, use_buffers=True).eval().requires_grad_(False)  # type: ignore[arg-type]
