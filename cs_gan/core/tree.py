"""Nestings of tuples, lists, dicts, dataclasses and all classes registered with torch's pytree."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from torch.utils._pytree import tree_flatten, tree_map


def leaves_of(tree: Any) -> tuple[list[Any], Any]:
    """The leaves of the nesting, in order, and its structure. Nestings of the same form have equal structures."""
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
