"""Which pictures of a folder or zip make up the data set: order, split and classes, from their paths alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from cs_gan.errors import DataError

IMAGE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What counts as an image in a folder or zip, in any case of letters."""
SPLIT_FOLDERS = frozenset({"train", "valid", "val", "validation", "test"})

Parts = tuple[str, ...]  # a path below the root, as its components


def arrange(
    entries: Sequence[Parts], split: str, root: Path
) -> tuple[list[Parts], list[int] | None, str]:  # -> entries in order, their labels, the split they are
    """Sort images, pick the split and number the classes, by their paths alone.

    Folders that hold everything are passed through. Where a folder named ``split`` follows, only its images
    stay; where there are only folders of other splits, that is an error; else all images stay and the split is
    ``"all"``. If every image then lies in one of several folders, those are the classes, numbered in order.
    Names sort naturally, so that ``10.png`` follows ``9.png``.
    """
    entries = sorted(entries, key=lambda parts: [_natural_key(part) for part in parts])
    depth = _shared_depth(entries, 0, stop=SPLIT_FOLDERS | {split})
    folders = {parts[depth] for parts in entries if len(parts) > depth + 1}
    split_only = bool(folders) and folders <= SPLIT_FOLDERS and all(len(p) > depth + 1 for p in entries)
    if split in folders:
        entries = [parts for parts in entries if len(parts) > depth + 1 and parts[depth] == split]
        depth = _shared_depth(entries, depth + 1)
    elif split_only and split != "all":
        raise DataError(f"{root} has no split {split!r}. It has: {', '.join(sorted(folders))}.")
    else:
        split, depth = "all", depth + 1 if split_only else depth
    classes = dict.fromkeys(parts[depth] for parts in entries if len(parts) > depth + 1)
    if len(classes) < 2 or any(len(parts) <= depth + 1 for parts in entries):
        return entries, None, split
    number = {name: i for i, name in enumerate(sorted(classes, key=_natural_key))}
    return entries, [number[parts[depth]] for parts in entries], split


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
    """The entries that are images; DataError if there is none."""
    kept = [parts for parts in entries if is_image(parts)]
    if not kept:
        raise DataError(f"{root} holds no images. Looked, at any depth, for {', '.join(IMAGE_EXTENSIONS)}.")
    return kept


def is_image(parts: Parts) -> bool:
    """Named as an image, and neither hidden nor one of macOS's resource forks."""
    return bool(parts) and not any(map(is_hidden, parts)) and parts[-1].lower().endswith(IMAGE_EXTENSIONS)


def is_hidden(name: str) -> bool:
    """A file or folder that no data set means to hold."""
    return name.startswith(".") or name == "__MACOSX"
