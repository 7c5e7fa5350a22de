"""The dotted keys of nested mappings, such as recipes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(nested: Mapping[Any, Any]) -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``. Empty mappings stay."""
    return dict(flat_items(nested))


def flat_items(nested: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The items of ``flatten``; a key that is written both ways, as ``a.b`` and as b within a, comes twice."""
    for key, value in nested.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat_items(value, f"{name}.")
        else:
            yield name, value
