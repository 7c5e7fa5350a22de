"""The batch axis of a block's inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from cs_gan.core.known import Axes, axes_of_torch
from cs_gan.core.tree import map_leaves
from cs_gan.errors import BlockError

BatchAxis = int | Mapping[str, int]


def axes_of(block: nn.Module, axis: int) -> Axes:
    """The user's ``axis``, or for torch's own recurrent and attention modules the axes that torch defines."""
    block = getattr(block, "_orig_mod", block)  # torch.compile's wrapper
    return axes_of_torch(block) or Axes(axis, (axis, axis), tuple(dict.fromkeys((axis, 0))))


def batch_axes(blocks: Mapping[str, nn.Module], batch_axis: BatchAxis) -> dict[str, Axes]:
    """The axes of every block.

    Raises:
        BlockError: if the mapping names a block that is not coded.
    """
    if isinstance(batch_axis, int):
        return {name: axes_of(block, batch_axis) for name, block in blocks.items()}
    unknown: Iterable[str] = batch_axis.keys() - blocks.keys()
    if unknown:
        raise BlockError(
            f"batch_axis names {sorted(unknown)}, which are not coded: the coded blocks are {list(blocks)}."
        )
    return {name: axes_of(block, batch_axis.get(name, 0)) for name, block in blocks.items()}


def batch_along(tensor: Tensor, axis: int) -> int | None:
    """The tensor's length along the axis, or None if it has no such axis."""
    return tensor.shape[axis] if -tensor.dim() <= axis < tensor.dim() else None


def map_tensors(function: Callable[[Tensor, int], Any], tree: Any, axes: tuple[int, int]) -> Any:
    """The same nesting with ``function(tensor, axis)`` in place of each tensor; other leaves are unchanged.

    Args:
        axes: batch axis of the first tensor, and of all other tensors.
    """
    tensors = 0

    def visit(leaf: Any) -> Any:
        nonlocal tensors
        if not isinstance(leaf, Tensor):
            return leaf
        tensors += 1
        return function(leaf, axes[tensors > 1])

    return map_leaves(visit, tree)
