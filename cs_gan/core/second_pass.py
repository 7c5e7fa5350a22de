"""What a second forward through a block must not disturb, and what it should share with the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from cs_gan.errors import BatchError

BATCH_NORM_POLICIES = ("keep", "update", "running")
Masks = dict[nn.Module, list[Tensor]]


@contextmanager
def one_parameter_value(block: nn.Module) -> Iterator[None]:
    """Around both passes: a parametrized weight (spectral norm) is computed once and used by both."""
    if any(parametrize.is_parametrized(module) for module in block.modules()):
        with parametrize.cached():
            yield
    else:
        yield


@contextmanager
def coded_pass(
    block: nn.Module, batch_norm: str, masks: Masks | None = None, nearest: Tensor | None = None
) -> Iterator[None]:
    """Around the coded pass alone.

    Batch norm: ``keep`` normalises by the coded batch and leaves the running statistics as they are;
    ``update`` lets the coded batch enter them; ``running`` normalises by them. In eval mode every
    policy uses the running statistics, as the plain pass does.
    """
    changes: list[tuple[nn.Module, str, Any]] = []
    hooks: list[tuple[nn.Module, dict[int, Any]]] = []
    handles = []
    try:
        for module in block.modules():
            if isinstance(module, _NormBase) and module.training and batch_norm != "update":
                # momentum = 0 would still let a NaN into the statistics and count a batch.
                attribute = "track_running_stats" if batch_norm == "keep" else "training"
                changes.append((module, attribute, getattr(module, attribute)))
                setattr(module, attribute, False)
            if masks is not None and nearest is not None and module in masks:
                changes.append((module, "training", module.training))
                module.training = False
                handles.append(module.register_forward_hook(_replay(masks[module], nearest)))
            old_style = [
                k for k, hook in module._forward_pre_hooks.items() if isinstance(hook, SpectralNorm | WeightNorm)
            ]
            if old_style:
                # These recompute the weight (and step the power iteration) before each forward;
                # without them the module keeps the weight that the plain pass computed.
                hooks.append((module, dict(module._forward_pre_hooks)))
                for key in old_style:
                    del module._forward_pre_hooks[key]
        yield
    finally:
        for module, attribute, value in changes:
            setattr(module, attribute, value)
        for module, before in hooks:
            module._forward_pre_hooks.clear()
            module._forward_pre_hooks.update(before)
        for handle in handles:
            handle.remove()


@contextmanager
def recorded_dropout(block: nn.Module) -> Iterator[Masks]:
    """Around the plain pass: the mask of each dropout module, drawn ahead without moving the RNG."""
    masks: Masks = {}

    def record(module: nn.Module, args: tuple[Any, ...]) -> None:
        if module.training:
            x = args[0]
            devices = [x.device] if x.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices), torch.no_grad():
                masks.setdefault(module, []).append(module.forward(torch.ones_like(x)))

    with ExitStack() as stack:
        for module in block.modules():
            # Alpha dropout shifts as well as masks, so a mask can't stand for it.
            if isinstance(module, _DropoutNd) and type(module).__name__.startswith("Dropout"):
                stack.callback(module.register_forward_pre_hook(record).remove)
        yield masks


def _replay(masks: list[Tensor], nearest: Tensor) -> Any:
    """A forward hook: coded sample n meets the mask of the data sample whose node lies nearest."""
    remaining = iter(masks)

    def replay(_module: nn.Module, args: tuple[Any, ...], _output: Tensor) -> Tensor:
        x: Tensor = args[0]
        mask = next(remaining)
        if mask.shape[1:] != x.shape[1:] or x.shape[0] != len(nearest):
            raise BatchError(
                f"share_dropout: a dropout saw {tuple(mask.shape)} in the plain pass and {tuple(x.shape)} in the "
                "coded one. Sharing needs the batch as first axis; leave share_dropout off for this block."
            )
        return x * mask[nearest]

    return replay
