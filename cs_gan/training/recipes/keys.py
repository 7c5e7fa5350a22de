"""Keys of a recipe: their defaults, and the values that they may have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields, is_dataclass
from typing import Any

from cs_gan.errors import ConfigError


def checked(default: Any, holds: Callable[[Any], bool], expected: str) -> Any:
    """A key with its default and a condition for its value. None, if its type has it, needs no condition."""
    return field(default=default, metadata={"holds": holds, "expected": expected})


def at_least(least: int, default: float | None) -> Any:
    """A key for a number from ``least`` on."""
    expected = f"at least {least}" if least else "0 or more"
    return checked(default, lambda value: value >= least, expected + ", or null" * (default is None))


def above_0(default: float | None) -> Any:
    """A key for a number above 0."""
    return checked(default, lambda value: value > 0, "above 0" + ", or null" * (default is None))


def below_1(default: float) -> Any:
    """A key for a number in [0, 1)."""
    return checked(default, lambda value: 0 <= value < 1, "in [0, 1)")


def check(section: Any, prefix: str = "") -> None:
    """Check the keys of a recipe or section, and of the sections in it.

    Raises:
        ConfigError: for the first value that doesn't meet its condition, or is null where its type has no None.
    """
    for key in fields(section):
        name, value, limit = prefix + key.name, getattr(section, key.name), key.metadata
        if is_dataclass(value):
            check(value, f"{name}.")
        elif value is None:
            require("None" in str(key.type), name, "null", limit.get("expected") or f"of type {key.type}")
        elif limit:
            require(limit["holds"](value), name, value, limit["expected"])


def require(holds: bool, key: str, value: Any, expected: str) -> None:
    """Raise an error that names the key and its value.

    Raises:
        ConfigError: if ``holds`` is false.
    """
    if not holds:
        raise ConfigError(f"{key} = {value!r} must be {expected}.")


def names_of(names: list[str] | str) -> list[str]:
    """A list from a list, or from names separated by commas."""
    if isinstance(names, str):
        return [name for part in names.split(",") if (name := part.strip())]
    return names
