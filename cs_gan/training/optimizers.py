"""Settings of torch's optimisers that the device needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def device_options(device: torch.device, learning_rate: float) -> dict[str, Any]:
    """Keyword arguments of Adam, AdamW and SGD: the learning rate and, on CUDA, the fused kernel.

    On CUDA the learning rate is a tensor, so that a CUDA graph reads the value of :func:`set_learning_rate`.
    """
    if device.type != "cuda":
        return {"lr": learning_rate}
    return {"lr": torch.tensor(learning_rate, device=device), "fused": True}


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value
