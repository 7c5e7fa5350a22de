"""Nestings of tuples, lists, dicts, dataclasses and whatever is registered with torch's pytree."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from torch.utils._pytree import tree_flatten, tree_map


def leaves_of(tree: Any) -> tuple[list[Any], Any]:
    """What the nesting holds, in order, and its structure, which compares equal to that of a like one."""
    leaves, spec = tree_flatten(tree)
    if not any(map(_is_open, leaves)):
        return leaves, spec
    found, inside = [], []
    for leaf in leaves:
        within, structure = leaves_of(_members(leaf)) if _is_open(leaf) else ([leaf], None)
        found += within
        inside.append((type(leaf), structure) if _is_open(leaf) else None)
    return found, (spec, inside)


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same nesting with ``function`` of every leaf, called in the order of :func:`leaves_of`."""

    def visit(leaf: Any) -> Any:
        if not _is_open(leaf):
            return function(leaf)
        twin = copy.copy(leaf)
        for name, value in _members(leaf).items():
            object.__setattr__(twin, name, map_leaves(function, value))  # frozen ones too
        return twin

    return tree_map(visit, tree)


def _is_open(leaf: Any) -> bool:
    """A dataclass that nobody registered with pytree; to pytree it is a leaf."""
    return is_dataclass(leaf) and not isinstance(leaf, type)


def _members(leaf: Any) -> dict[str, Any]:
    return {field.name: getattr(leaf, field.name) for field in fields(leaf) if hasattr(leaf, field.name)}
