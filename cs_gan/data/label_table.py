"""``dataset.json`` of StyleGAN's dataset tool: ``{"labels": [["00000/img00000000.png", 6], ...]}``, or null."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from cs_gan.data.layout import Layout
from cs_gan.data.names import LABEL_TABLE, Parts
from cs_gan.data.sources import ImageTree
from cs_gan.data.store import MAX_CLASSES
from cs_gan.errors import DataError


def with_table(tree: ImageTree, layout: Layout) -> Layout:
    """The layout, with the labels of the ``dataset.json`` beside or above its images if there is one.

    Raises:
        DataError: naming the table, if it can't be read, lacks an image, or has two tables compete.
    """
    tables = [table for table in tree.tables if table[-1] == LABEL_TABLE]
    fits = [table for table in tables if all(p[: len(table) - 1] == table[:-1] for p in layout.order)]
    if not fits:
        return replace(layout, remark=layout.remark + "".join(f", {'/'.join(t)} not read" for t in tables))
    table = max(fits, key=len)
    name, labels = tree.name(table), _labels(tree, table)
    if labels is None:
        return layout  # another program's dataset.json
    if not labels:
        return replace(layout, remark=f"{layout.remark}, {LABEL_TABLE} has no labels")
    base = len(table) - 1
    keys = ["/".join(parts[base:]) for parts in layout.order]
    if absent := [key for key in keys if key not in labels]:
        raise DataError(
            f"{name} has no label for {absent[0]} ({len(absent):,} such of {len(keys):,}). Get both again from one "
            "place, or remove the table for images without classes."
        )
    numbers = _numbers([labels[key] for key in keys], keys, name)
    if numbers is None:
        without = replace(layout, labels=None, classes=(), empty=())
        return replace(without, remark=f"{layout.remark}, {LABEL_TABLE} has vectors that are no classes")
    count = max(numbers) + 1
    if count > MAX_CLASSES:
        at = keys[numbers.index(count - 1)]
        raise DataError(f"{name}: {at} has label {count - 1}; at most {MAX_CLASSES:,} classes are read.")
    classes = [str(number) for number in range(count)]
    return Layout(layout.order, numbers, layout.split, classes, remark=f"{layout.remark}, labels of {LABEL_TABLE}")


def _labels(tree: ImageTree, table: Parts) -> dict[str, object] | None:  # -> by path; empty if null
    """The table's labels; None if the file is another program's."""
    name, text = tree.name(table), tree.text(table)
    try:
        content = json.loads(text or "")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} isn't JSON ({type(error).__name__}: {error}). Get it again, or remove it.") from error
    if not isinstance(content, dict) or "labels" not in content:
        return None
    rows = content["labels"]
    if rows is None:
        return {}
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) for row in rows
    ):
        raise DataError(
            f'{name}: "labels" must be null or a list such as [["00000/img00000000.png", 6], ...], as StyleGAN\'s '
            "dataset tool writes it. Get it again, or remove it."
        )
    labels: dict[str, object] = {}
    for path, label in rows:
        key = path.replace("\\", "/").removeprefix("./")
        if labels.setdefault(key, label) != label:
            raise DataError(f"{name}: {path} occurs twice, with different labels. Get it again.")
    return labels


def _numbers(labels: Sequence[object], keys: Sequence[str], name: str) -> list[int] | None:
    """Class numbers; None for vectors that aren't one-hot. DataError for anything else."""
    if all(isinstance(label, list) for label in labels):
        hot = [_position(label) for label in labels if isinstance(label, list)]
        return None if None in hot or len({len(x) for x in labels if isinstance(x, list)}) > 1 else hot  # type: ignore[return-value]
    for key, label in zip(keys, labels, strict=True):
        if type(label) is not int or label < 0:
            raise DataError(f"{name}: {key} has the label {label!r:.80}. Give whole numbers from 0, or null.")
    return [label for label in labels if isinstance(label, int)]


def _position(vector: Sequence[object]) -> int | None:
    """Where a one-hot vector is 1; None for another."""
    ones = [i for i, value in enumerate(vector) if value == 1]
    return ones[0] if len(ones) == 1 and all(value in (0, 1) for value in vector) else None
