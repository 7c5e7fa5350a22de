"""What a block takes and gives: nestings of tensors, and where their batch axis is.

A nesting is made of tuples, lists, dicts, dataclasses and all classes registered with torch's pytree.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from cs_gan.core.known import Axes, axes_of_torch
from cs_gan.errors import BlockError

BatchAxis = int | Mapping[str, int]


def leaves_of(tree: Any) -> tuple[list[Any], Any]:
    """The leaves of the nesting, in order, and its structure. Nestings of the same form have equal structures."""
    leaves, spec = tree_flatten(tree)
    if not any(map(_is_open, leaves)):
        return leaves, spec
    opened, structures = [], []
    for leaf in leaves:
        within, structure = leaves_of(_members(leaf)) if _is_open(leaf) else ([leaf], None)
        opened += within
        structures.append((type(leaf), structure) if _is_open(leaf) else None)
    return opened, (spec, structures)


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same nesting with ``function(leaf)`` for every leaf, called in the order of :func:`leaves_of`."""

    def visit(leaf: Any) -> Any:
        if not _is_open(leaf):
            return function(leaf)
        twin = copy.copy(leaf)
        for name, value in _members(leaf).items():
            object.__setattr__(twin, name, map_leaves(function, value))  # also works for frozen dataclasses
        return twin

    return tree_map(visit, tree)


def _is_open(leaf: Any) -> bool:
    """Whether it is a dataclass that is not registered with pytree, which pytree treats as a leaf."""
    return is_dataclass(leaf) and not isinstance(leaf, type)


def _members(leaf: Any) -> dict[str, Any]:
    return {field.name: getattr(leaf, field.name) for field in fields(leaf) if hasattr(leaf, field.name)}


# -- the batch axis --------------------------------------------------------------------------------


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
