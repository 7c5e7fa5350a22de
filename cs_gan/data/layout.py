"""Which pictures of a folder or zip make up the data set: order, split and classes, from their paths only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath

from cs_gan.errors import DataError

IMAGE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Extensions of images in a folder or zip, in upper or lower case."""
_NOTES = ("", ".csv", ".db", ".html", ".ini", ".json", ".md", ".pdf", ".tsv", ".txt", ".xml", ".yaml", ".yml")
SPLIT_FOLDERS = frozenset({"train", "valid", "val", "validation", "test"})

Parts = tuple[str, ...]  # a path below the root, as its components


@dataclass(frozen=True)
class Layout:
    """The layout of a data set, derived from its paths.

    Attributes:
        order: the images of the split, sorted.
        labels: class numbers, or None if there are no classes.
        split: the split of these images; ``"all"`` if the source isn't split.
        classes: the class folders' names by number; none without classes.
        empty: class folders without images, as paths; see :func:`_empty_classes`.
    """

    order: Sequence[Parts]
    labels: Sequence[int] | None
    split: str
    classes: Sequence[str] = ()
    empty: Sequence[str] = ()


def arrange(entries: Sequence[Parts], folders: Iterable[Parts], split: str, root: Path) -> Layout:
    """Sort images, select the split and number the classes, using only the paths of images and folders.

    A single folder that contains everything is skipped. If there is then a folder named ``split``, only its images
    are used. If there are only folders of other splits, that is an error. Otherwise all images are used and the split
    is ``"all"``. If every image is then in one of several folders, these are the classes, numbered in order. Names sort
    naturally, so ``10.png`` follows ``9.png``.
    """
    entries = natural_order(entries)
    depth = _shared_depth(entries, 0, stop=SPLIT_FOLDERS | {split})
    tops = {parts[depth] for parts in entries if len(parts) > depth + 1}
    split_only = bool(tops) and tops <= SPLIT_FOLDERS and all(len(p) > depth + 1 for p in entries)
    if split in tops:
        entries = [parts for parts in entries if len(parts) > depth + 1 and parts[depth] == split]
        start = depth + 1
        depth = _shared_depth(entries, start)
    elif split_only and split != "all":
        raise DataError(f"{root} has no split {split!r}. It has: {', '.join(sorted(tops))}.")
    else:
        split, depth = "all", depth + 1 if split_only else depth
        start = depth if split_only else 0
    found = {parts[depth] for parts in entries if len(parts) > depth + 1}
    if len(found) < 2 or any(len(parts) <= depth + 1 for parts in entries):
        return Layout(entries, None, split, empty=_empty_classes(entries, folders, range(start, depth + 1)))
    classes = sorted(found, key=_natural_key)
    number = {name: i for i, name in enumerate(classes)}
    labels = [number[parts[depth]] for parts in entries]
    return Layout(entries, labels, split, classes, _empty_classes(entries, folders, range(depth, depth + 1)))


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


def natural_order(entries: Iterable[Parts]) -> list[Parts]:
    """Paths sorted so that 10.png follows 9.png."""
    return sorted(entries, key=lambda parts: [_natural_key(part) for part in parts])


@lru_cache(maxsize=10_000)  # folders repeat, and often the file names in them
def _natural_key(name: str) -> tuple[list[str | tuple[int, str]], str]:
    # Text and digits alternate, text first, so equal positions always compare; of two numbers without leading
    # zeros the longer is the larger. The name itself settles 1 and 01.
    runs = re.split(r"([0-9]+)", name)
    return [(len(n := run.lstrip("0")), n) if i % 2 else run for i, run in enumerate(runs)], name


def _shared_depth(entries: Sequence[Parts], depth: int, stop: frozenset[str] = frozenset()) -> int:
    while len({parts[depth] if len(parts) > depth + 1 else None for parts in entries}) == 1:
        shared = entries[0][depth]
        if len(entries[0]) <= depth + 1 or shared in stop:
            break
        depth += 1
    return depth


def images_only(entries: Iterable[Parts], root: Path) -> list[Parts]:
    """The entries that are images. DataError if there are none."""
    kept = [parts for parts in entries if is_image(parts)]
    if not kept:
        raise DataError(f"{root} holds no images. Looked, at any depth, for {', '.join(IMAGE_EXTENSIONS)}.")
    return kept


def is_image(parts: Parts) -> bool:
    """Whether the name is that of an image, not hidden and not a macOS resource fork."""
    return bool(parts) and not any(map(is_hidden, parts)) and parts[-1].lower().endswith(IMAGE_EXTENSIONS)


def is_other(parts: Parts) -> bool:
    """Neither an image nor hidden, nor what data sets come with: lists, notes, a viewer's index."""
    hidden = not parts or any(map(is_hidden, parts))
    return not hidden and not is_image(parts) and PurePath(parts[-1]).suffix.lower() not in _NOTES


def left_out(others: Iterable[Parts]) -> str:
    """``, 3 files left out (2 .gif, 1 .npy)``: for a description; empty where there is none."""
    endings = Counter(PurePath(parts[-1]).suffix.lower() for parts in others)
    found = ", ".join(f"{n:,} {ending}" for ending, n in endings.most_common(5)) + (", ..." if len(endings) > 5 else "")
    count = endings.total()
    return f", {count:,} file{'s' * (count > 1)} left out ({found})" if count else ""


def is_hidden(name: str) -> bool:
    """Whether this file or folder is never part of a data set."""
    return name.startswith(".") or name == "__MACOSX"
