"""A CUDA graph's stand-in on a CPU: it records every operation with its tensors, and repeats just these.

Like a graph it sees tensors alone: a number that Python computed stays what it was, a tensor read on the host is an
error, and what isn't written to between two replays doesn't change. Unlike a graph it has to run what it records; so
the first replay, which would be that run, does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Outputs = dict[str, Tensor]


class Recorder:
    """A :data:`cs_gan.training.capture.Capture`; ``captures`` and ``replays`` count."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def __call__(self, function: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
        self.captures += 1
        recording = _Recording()
        with recording:
            outputs = function()
        fresh = [True]

        def replay() -> None:
            self.replays += 1
            if not fresh:
                recording.repeat()
            fresh.clear()

        return outputs, replay


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a tensor was read on the host while a graph was captured")
        result = func(*args, **kwargs)
        given = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        views = [_address(leaf) in given for leaf in made]
        if not (made and all(views) and not func._schema.is_mutable):  # a view of what is there needs no repeating
            self.calls.append((func, args, kwargs, [t for t, view in zip(made, views, strict=True) if not view]))
        return result

    @torch.no_grad()
    def repeat(self) -> None:
        for func, args, kwargs, made in self.calls:
            result = func(*args, **kwargs)
            if made:
                again = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
                for old, new in zip(made, again[-len(made) :], strict=True):
                    old.copy_(new)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
