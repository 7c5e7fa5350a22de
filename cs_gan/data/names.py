"""What a file's name says: an image, a list that comes with images, a note, or something else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import PurePath

IMAGE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Extensions of images in a folder or zip, in upper or lower case."""
LABEL_TABLE = "dataset.json"
"""The labels of StyleGAN's dataset tool."""
PARTITIONS = ("list_eval_partition.txt", "list_eval_partition.csv")
"""CelebA's list of the split of each image, as its authors and as Kaggle have it."""
_NOTES = (".csv", ".db", ".html", ".ini", ".json", ".md", ".pdf", ".tsv", ".txt", ".xml", ".yaml", ".yml")
# Without an ending they are notes too; any other file without one may be an image.
_TITLES = frozenset({"authors", "changelog", "citation", "copying", "license", "licence", "makefile", "md5sums"}) | {
    *("notice", "readme", "sha256sums", "version")
}

Parts = tuple[str, ...]  # a path below the root, as its components


def is_hidden(name: str) -> bool:
    """Whether this file or folder is never part of a data set."""
    return name.startswith(".") or name == "__MACOSX"


def is_image(parts: Parts) -> bool:
    """Whether the name is that of an image, not hidden and not a macOS resource fork."""
    return bool(parts) and not any(map(is_hidden, parts)) and parts[-1].lower().endswith(IMAGE_EXTENSIONS)


def is_table(parts: Parts) -> bool:
    """Whether the name is that of a list which is read: of labels or of splits."""
    return bool(parts) and not any(map(is_hidden, parts)) and parts[-1] in (LABEL_TABLE, *PARTITIONS)


def is_other(parts: Parts) -> bool:
    """Neither an image nor hidden, nor what data sets come with: lists, notes, a viewer's index."""
    if not parts or any(map(is_hidden, parts)) or is_image(parts):
        return False
    ending = PurePath(parts[-1]).suffix.lower()
    return ending not in _NOTES if ending else parts[-1].lower() not in _TITLES


def left_out(others: Iterable[Parts]) -> str:
    """``, 3 files left out (2 .gif, 1 .npy)``: for a description; empty where there is none."""
    endings = Counter(PurePath(parts[-1]).suffix.lower() or "without an ending" for parts in others)
    found = ", ".join(f"{n:,} {ending}" for ending, n in endings.most_common(5)) + (", ..." if len(endings) > 5 else "")
    count = endings.total()
    return f", {count:,} file{'s' * (count > 1)} left out ({found})" if count else ""


def natural_order(entries: Iterable[Parts]) -> list[Parts]:
    """Paths sorted so that 10.png follows 9.png."""
    return sorted(entries, key=lambda parts: [natural_key(part) for part in parts])


@lru_cache(maxsize=10_000)  # folders repeat, and often the file names in them
def natural_key(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """A key that sorts numbers in names by their value."""
    # Text and digits alternate, text first, so equal positions always compare; of two numbers without leading
    # zeros the longer is the larger. The name itself settles 1 and 01.
    runs = re.split(r"([0-9]+)", name)
    return [(len(n := run.lstrip("0")), n) if i % 2 else run for i, run in enumerate(runs)], name


def some_of(names: Sequence[str], most: int = 5) -> str:
    """The first names, for a message, and how many there are if there are more."""
    return ", ".join(names[:most]) + (f", ... ({len(names):,} in all)" if len(names) > most else "")
