"""torch's optimisers with the settings that the device needs, and the learning rate's schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.training.recipes.classifier import ClassifierTrainingConfig


def device_options(device: torch.device, learning_rate: float) -> dict[str, Any]:
    """Keyword arguments of Adam, AdamW and SGD: the learning rate and, on CUDA, the fused kernel.

    On CUDA the learning rate is a tensor, so that a CUDA graph reads the value of :func:`set_learning_rate`.
    """
    if device.type != "cuda":
        return {"lr": learning_rate}
    return {"lr": torch.tensor(learning_rate, device=device), "fused": True}


def sgd_or_adamw(training: ClassifierTrainingConfig, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimiser, for all weights."""
    common = {**device_options(device, training.learning_rate), "weight_decay": training.weight_decay}
    if training.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), capturable=device.type == "cuda", **common)
    return torch.optim.SGD(network.parameters(), momentum=training.momentum, nesterov=training.nesterov, **common)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value


def warmed_up(progress: float, warmup: float, step: float, decay: str) -> float:
    """The learning rate's factor: linear warm-up, then constant or half a cosine to 0.

    Args:
        progress: fraction of the steps that are done, in [0, 1).
        warmup: fraction of the steps over which it grows.
        step: one step as a fraction of all steps.
        decay: constant or cosine.
    """
    if progress < warmup:
        return (progress + step) / warmup
    if decay == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
