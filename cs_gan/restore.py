"""Contexts that restore training modes and random state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def isolated_rng(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of the CPU and ``device`` inside, and restore their states on exit.

    ``torch.manual_seed`` would also seed every other accelerator, which ``fork_rng`` doesn't restore.
    """
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    """A context in eval mode. On exit every submodule has its old mode, including frozen batch norms."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
