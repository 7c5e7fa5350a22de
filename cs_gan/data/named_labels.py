"""Labels of packed data, which are numbers or names, as class numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cs_gan.data.names import natural_key
from cs_gan.errors import DataError


def numbered(
    path: Path, values: Sequence[object] | None, names: Sequence[str] = ()
) -> tuple[list[int] | None, Sequence[str], str]:  # -> labels, classes, a remark
    """Class numbers. Names are numbered in natural order.

    Args:
        path: for errors.
        values: whole numbers or names, one for each image; None without labels.
        names: the classes' names by number, if they are known.

    Raises:
        DataError: if some values are numbers and others are names, or some are missing.
    """
    if values is None or all(value is None or value == -1 for value in values):  # the Hub's test sets have -1
        return None, (), ", labels are all empty" if values else ""
    if all(type(value) is int for value in values):
        return [value for value in values if isinstance(value, int)], _unique(names), ""
    words = [value for value in values if isinstance(value, str)]
    if len(words) < len(values):
        first = next(i for i, value in enumerate(values) if type(value) is not type(values[0]) or value is None)
        raise DataError(
            f"{path}: image {first} has the label {values[first]!r:.80}, and image 0 has {values[0]!r:.80}. Give all "
            "images a number, or all a name, or none."
        )
    classes = sorted(set(words), key=natural_key)
    number = {name: i for i, name in enumerate(classes)}
    return [number[word] for word in words], classes, ""


def _unique(names: Sequence[str]) -> list[str]:
    """Names that occur twice get their number, because a class is known by its name."""
    twice = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name} ({i})" if name in twice else name for i, name in enumerate(names)]
