"""CelebA's aligned faces, in the folders of its authors, of torchvision and of Kaggle, split by its partition."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from cs_gan.data.foreign import images_only
from cs_gan.data.layout import Layout
from cs_gan.data.names import PARTITIONS, Parts, left_out, natural_order
from cs_gan.data.sources import ImageSource, ImageTree
from cs_gan.data.trees import tree_source
from cs_gan.errors import DataError

CELEBA_STORED = (178, 218)
"""(width, height) of an aligned image."""
FOLDER = "celeba"
"""The folder in which torchvision keeps the data."""

OTHER_SIZES = {
    (1024, 1024): "CelebA-HQ and CelebAMask-HQ have this size: use --data.name=folder --data.image_size=64, with the "
    "folder of the images alone (CelebA-HQ-img) as --data.root.",
    (512, 512): "the masks of CelebAMask-HQ have this size, which are no faces: use --data.name=folder "
    "--data.image_size=64, with the folder of the images (CelebA-HQ-img) as --data.root.",
    (256, 256): "CelebA-HQ is often stored in this size: use --data.name=folder --data.image_size=64.",
    (178, 178): "they seem to be cropped already: use --data.name=folder --data.image_size=64.",
}
"""What pictures of other sizes are, and the name under which they can be read."""

_SPLITS = ("train", "valid", "test")  # 0, 1 and 2 in the partition
_NAMES = {"val": "valid", "validation": "valid"}


def celeba_source(tree: ImageTree, split: str) -> ImageSource:
    """The aligned images of a split by ``list_eval_partition``, at any depth of the tree or beside it.

    Without that list the images are those of :func:`~cs_gan.data.trees.tree_source`.

    Raises:
        DataError: naming what the list lacks, or that two images have one name.
    """
    try:
        partition = _partition(tree)
        if partition is None:
            return tree_source(tree, split)
        name, numbers = partition
        split = _NAMES.get(split, split)
        if split not in (*_SPLITS, "all"):
            raise DataError(f"celeba has no split {split!r}; it has {', '.join(_SPLITS)}, all.")
        images = _aligned(images_only(tree.images, tree.root, tree.others))
        members = _of_split(tree, images, numbers, name, split)
        missing = len(numbers) - len(images)
        remark = f" by {name.rpartition('/')[2]}" + (f", which lists {missing:,} more images" if missing > 0 else "")
        return tree.source(Layout(members, None, split, remark=remark + left_out(tree.others)))
    except BaseException:
        tree.close()
        raise


def celeba_root(root: Path) -> Path:
    """``root``, or torchvision's folder in it: nothing else that was downloaded beside is read."""
    inner = root / FOLDER
    return inner if any((inner / name).is_file() for name in PARTITIONS) else root


def _partition(tree: ImageTree) -> tuple[str, dict[str, int]] | None:  # -> its name, and 0 ... 2 by image
    """The partition in the tree, otherwise in the folder that has the tree; None if there is none."""
    inside = [table for table in tree.tables if table[-1] in PARTITIONS]
    if inside:
        first = min(inside, key=lambda table: (len(table), PARTITIONS.index(table[-1])))
        return tree.name(first), _rows(tree.text(first) or "", tree.name(first))
    root = tree.root.absolute()
    # Kaggle has img_align_celeba/img_align_celeba, the authors Img/img_align_celeba, and the list is beside the outer.
    outer = [root.parent.parent] if root.parent.name in (root.name, "Img") else []
    places = [folder / below for folder in (root.parent, *outer) for below in ("", "Eval")]
    path = next((path for place in places for name in PARTITIONS if (path := place / name).is_file()), None)
    return None if path is None else (str(path), _rows(_text(path), str(path)))


def _text(path: Path) -> str:
    """A text file in UTF-8; DataError if it can't be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read ({type(error).__name__}: {error}). Get it again.") from error


def _rows(text: str, name: str) -> dict[str, int]:
    """``000001.jpg 0`` or ``000001.jpg,0`` on each line. The key is the name without ending, as a PNG has another."""
    lines = text.splitlines()
    rows = list(csv.reader(lines)) if name.endswith(".csv") else [line.split() for line in lines]
    numbers: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        if not row or (number == 1 and row[-1:] == ["partition"]):
            continue
        if len(row) != 2 or row[1].strip() not in ("0", "1", "2"):
            raise DataError(f"{name}, line {number}: {' '.join(row)[:80]!r} isn't '<image> <0, 1 or 2>'. Get it again.")
        stem, part = row[0].strip().rpartition(".")[0], int(row[1])
        if numbers.setdefault(stem, part) != part:
            raise DataError(f"{name}, line {number}: {row[0]} occurs twice, in two splits. Get it again.")
    if not numbers:
        raise DataError(f"{name} is empty. Get it again.")
    return numbers


def _aligned(images: list[Parts]) -> list[Parts]:
    """The images below ``img_align_celeba``, if there is such a folder; otherwise all."""
    return [parts for parts in images if "img_align_celeba" in parts[:-1]] or images


def _of_split(
    tree: ImageTree, images: list[Parts], numbers: Mapping[str, int], name: str, split: str
) -> list[Parts]:  # in natural order
    stems: dict[str, Parts] = {}
    for parts in natural_order(images):
        stem = parts[-1].rpartition(".")[0]
        if stem not in numbers:
            raise DataError(
                f"{tree.name(parts)} isn't in {name}, so it is of no split. Is --data.root CelebA's folder? Remove the "
                "image or the list, or use --data.name=folder."
            )
        if stem in stems:
            raise DataError(
                f"{tree.name(parts)} and {tree.name(stems[stem])} have one name in {name}. Give the folder of one."
            )
        stems[stem] = parts
    members = [parts for stem, parts in stems.items() if split == "all" or numbers[stem] == _SPLITS.index(split)]
    if not members:
        raise DataError(f"{tree.root} has no images of the split {split!r} in {name}. Give one that it has, or all.")
    return members
