"""Which pictures of a folder or zip make up the data set: order, split and classes, from their paths only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cs_gan.data.names import Parts, natural_key, natural_order
from cs_gan.data.splits import choose

_SHARD_SIZES = (100, 1000, 10_000, 100_000)


@dataclass(frozen=True)
class Layout:
    """The layout of a data set, derived from its paths.

    Attributes:
        order: the images of the split, sorted.
        labels: class numbers, or None if there are no classes.
        split: the split of these images; ``"all"`` if the source isn't split.
        classes: the class folders' names by number; none without classes.
        empty: class folders without images, as paths; see :func:`_empty_classes`.
        remark: what isn't as the paths alone suggest, for the description.
        no_classes: that folders aren't taken for classes, for the description.
    """

    order: Sequence[Parts]
    labels: Sequence[int] | None
    split: str
    classes: Sequence[str] = ()
    empty: Sequence[str] = ()
    remark: str = ""
    no_classes: str = ""


def arrange(entries: Sequence[Parts], folders: Iterable[Parts], split: str, root: Path) -> Layout:
    """Sort images, select the split and number the classes, using only the paths of images and folders.

    :func:`~cs_gan.data.splits.choose` selects the split. If every image is then in one of several folders, these are
    the classes, numbered in order, unless they are numbered parts of one set. Names sort naturally, so ``10.png``
    follows ``9.png``.
    """
    chosen = choose(natural_order(entries), split, root)
    entries, depth, remark = chosen.entries, chosen.depth, chosen.remark
    names = {parts[depth] for parts in entries if len(parts) > depth + 1}
    if len(names) < 2 or any(len(parts) <= depth + 1 for parts in entries):
        empty = _empty_classes(entries, folders, range(chosen.start, depth + 1))
        return Layout(entries, None, chosen.split, empty=empty, remark=remark)
    classes = sorted(names, key=natural_key)
    if _are_shards(entries, depth, classes):
        no_classes = f", numbered folders ({classes[0]} ... {classes[-1]}) are no classes: rename them if they are"
        return Layout(entries, None, chosen.split, remark=remark, no_classes=no_classes)
    number = {name: i for i, name in enumerate(classes)}
    labels = [number[parts[depth]] for parts in entries]
    empty = _empty_classes(entries, folders, range(depth, depth + 1))
    return Layout(entries, labels, chosen.split, classes, empty, remark)


def _are_shards(entries: Sequence[Parts], depth: int, names: Sequence[str]) -> bool:
    """Whether folders such as 00000 and 00001 are parts of one long list, as StyleGAN's tool and FFHQ make them.

    Folders 0 ... 9 are classes, and so are 00000 ... 00042 if the files in them are numbered anew (as road signs' are).
    """
    widths = {len(name) for name in names}
    if len(widths) > 1 or max(widths) < 4 or not all(re.fullmatch("[0-9]+", name) for name in names):
        return False
    files = [parts[-1] for parts in entries]
    if max(widths) >= 5:
        return len(set(files)) == len(files)
    numbers = [re.findall("[0-9]+", file) for file in files]
    if not all(numbers):
        return False
    pairs = [(int(parts[depth]), int(found[-1])) for parts, found in zip(entries, numbers, strict=True)]
    return any(
        all(folder == n // size for folder, n in pairs) or all(folder == n - n % size for folder, n in pairs)
        for size in _SHARD_SIZES
    )


def _empty_classes(entries: Sequence[Parts], folders: Iterable[Parts], depths: Iterable[int]) -> list[str]:
    """Class folders without images: next to folders with images, at one of ``depths``, where classes are.

    Without classes, ``depths`` are all depths below the split: for example train/dog if all images are in train/cat. If
    all splits are read together, a class that is empty in only one split is not empty.
    """
    found = []
    for depth in depths:
        parents = {parts[:depth] for parts in entries}
        full = {parts[depth] for parts in entries if len(parts) > depth + 1}
        beside = {parts for parts in folders if len(parts) == depth + 1 and parts[:depth] in parents}
        found += [parts for parts in beside if full and parts[depth] not in full]
    return ["/".join(parts) for parts in sorted(found)]
