"""torch's optimisers: without an import that they don't need, and with the settings that the device needs."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import torch
from torch import Tensor

Kind = TypeVar("Kind", bound=torch.optim.Optimizer)


def without_dynamo(kind: type[Kind]) -> type[Kind]:
    """The same optimiser, but it doesn't import ``torch._dynamo``.

    torch's optimisers import it in their first call, to keep themselves out of compiled graphs. That takes nearly as
    long as ``import torch``, and runs compile nothing. What their methods compute is the same.
    """
    plain: dict[str, Any] = {
        name: inspect.unwrap(getattr(kind, name))
        for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    }
    step = torch.no_grad()(inspect.unwrap(kind.step))
    made: type[Kind] = type(kind.__name__, (kind,), {**plain, "step": step, "__module__": kind.__module__})
    return made


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
