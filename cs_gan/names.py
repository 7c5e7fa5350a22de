"""The hint for a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


def did_you_mean(
    name: str, known: Iterable[str], *, most: int = 2, cutoff: float = 0.6, show: Callable[[str], str] = str
) -> str:
    """``Did you mean a or b?``; empty if no known name is near.

    Args:
        name: what the user wrote.
        known: names that would be right.
        most: at most so many of them.
        cutoff: difflib's similarity, from 0 to 1, from which on a name is near.
        show: how a name is written in the hint.
    """
    near = difflib.get_close_matches(name, list(known), n=most, cutoff=cutoff)
    return f"Did you mean {' or '.join(map(show, near))}?" if near else ""


def nearest_or_all(name: str, known: Iterable[str], show: Callable[[str], str] = str) -> str:
    """``Did you mean a or b?``, or ``There are a, b, c.`` if no name is near."""
    known = list(known)
    near = did_you_mean(name, known, cutoff=0.5, show=show)
    return near or f"There are {', '.join(map(show, known)) or 'none'}."
