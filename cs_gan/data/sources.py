"""Sources of pictures: an array, files, a folder. Zips are in :mod:`cs_gan.data.archives`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cs_gan.data.formats import open_picture
from cs_gan.data.layout import Layout
from cs_gan.data.names import Parts, is_hidden, is_image, is_other, is_table
from cs_gan.errors import DataError

MAX_FILE_BYTES = 256 * 2**20
"""Larger image files raise an error before they are read."""


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class ImageSource:
    """Pictures in a fixed order, opened one at a time, from any thread.

    Attributes:
        names: the name of each picture for errors.
        open: opens picture ``i``; it may raise any error of Pillow or the file system.
        labels: class numbers, or None.
        split: the split of the pictures, ``"all"`` if the source isn't split.
        close: closes the underlying file.
        classes: the classes' names by number; if there are labels but no names, the numbers are used.
        empty: class folders without images.
        remark: what the description says about the split, and about what was left out.
    """

    names: Sequence[str]
    open: Callable[[int], Image.Image]
    labels: Sequence[int] | None
    split: str
    close: Callable[[], None] = _nothing
    classes: Sequence[str] = ()
    empty: Sequence[str] = ()
    remark: str = ""

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class ImageTree:
    """The files below a folder or in a zip.

    Attributes:
        root: that folder or zip.
        images: the paths of all images, in no order.
        folders: the paths of all folders, also without images.
        read: returns the bytes of one file; it may raise any error of the file system or zipfile.
        name: the name of a path for errors.
        close: closes the underlying file.
        others: the paths of files that look like data but are not images that can be read.
        tables: the paths of lists of labels and splits; see :func:`~cs_gan.data.names.is_table`.
    """

    root: Path
    images: Sequence[Parts]
    folders: Sequence[Parts]
    read: Callable[[Parts], bytes]
    name: Callable[[Parts], str]
    close: Callable[[], None] = _nothing
    others: Sequence[Parts] = ()
    tables: Sequence[Parts] = ()

    def source(self, layout: Layout, remark: str = "") -> ImageSource:
        """The pictures selected by a layout."""
        order = layout.order
        return ImageSource(
            [self.name(parts) for parts in order],
            lambda i: open_picture(self.read(order[i])),
            layout.labels,
            layout.split,
            self.close,
            layout.classes,
            layout.empty,
            layout.remark + layout.no_classes + remark,
        )

    def text(self, parts: Parts) -> str | None:
        """A text file in UTF-8; None if there isn't one; DataError if it can't be read."""
        try:
            return self.read(parts).decode()
        except (KeyError, FileNotFoundError):
            return None
        except DataError as error:
            raise DataError(f"{self.name(parts)}: {error}") from error
        except Exception as error:  # OSError, BadZipFile, zlib.error, UnicodeDecodeError, ...
            raise DataError(
                f"{self.name(parts)} can't be read ({type(error).__name__}: {error}). Get it again."
            ) from error


def array_source(
    pixels: npt.NDArray[np.uint8], labels: Iterable[int], *, name: str, split: str, classes: Sequence[str]
) -> ImageSource:  # pixels (n, H, W) or (n, H, W, 3)
    """Pictures in an array."""
    names = [f"{name} image {i}" for i in range(len(pixels))]
    numbers = [int(label) for label in labels]
    return ImageSource(names, lambda i: Image.fromarray(pixels[i]), numbers, split, classes=classes)


def folder_tree(root: Path) -> ImageTree:
    """The files below the folder ``root``, which may be a link.

    Links that stay below ``root`` are followed, each folder once. Links that are broken, circular or lead outside of
    ``root`` raise an error. So a data set consists only of what is in its folder.

    Raises:
        DataError: naming such a link, or a folder that can't be listed.
    """
    folders: list[Path] = []
    others: list[Path] = []
    tables: list[Path] = []
    images = [path.relative_to(root).parts for path in _walk(root, folders, others, tables)]

    return ImageTree(
        root,
        images,
        [path.relative_to(root).parts for path in folders],
        read=lambda parts: _read(root.joinpath(*parts)),
        name=lambda parts: str(root.joinpath(*parts)),
        others=[path.relative_to(root).parts for path in others],
        tables=[path.relative_to(root).parts for path in tables],
    )


def has_images(root: Path) -> bool:
    """Whether :func:`folder_tree` would find any image below ``root``."""
    return any(True for _ in _walk(root, [], [], []))


def check_bytes(size: int) -> None:
    """DataError if an image file of ``size`` bytes is empty or too large."""
    if size == 0:
        raise DataError("the file is empty. Delete or replace it.")
    if size > MAX_FILE_BYTES:
        raise DataError(f"the file takes {size / 2**20:,.0f} MiB; the limit is {MAX_FILE_BYTES // 2**20} MiB.")


def _read(path: Path) -> bytes:
    check_bytes(path.stat().st_size)
    return path.read_bytes()


def _walk(root: Path, folders: list[Path], others: list[Path], tables: list[Path]) -> Iterator[Path]:
    """Image files below ``root``, without hidden ones. Folders and files of other kinds are added to the lists."""
    top = os.path.realpath(root)
    seen: set[str] = set()

    def below(folder: Path, trail: tuple[str, ...]) -> Iterator[Path]:
        real = os.path.realpath(folder)
        if real in seen:
            return
        seen.add(real)
        for entry in _entries(folder):
            path = folder / entry.name
            if entry.is_symlink():
                _check_link(path, top, (*trail, real))
            if entry.is_dir():
                folders.append(path)
                yield from below(path, (*trail, real))
            elif is_image((entry.name,)):
                if not entry.is_file():
                    raise DataError(f"{path} is named as an image but isn't a file. Remove or rename it.")
                yield path
            elif is_table((entry.name,)):
                tables.append(path)
            elif is_other((entry.name,)):
                others.append(path)

    return below(root, ())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:  # scandir knows links and folders without reading the disk again
            return sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} can't be listed ({error.strerror}). Check its permissions.") from error


def _check_link(path: Path, top: str, trail: Sequence[str]) -> None:
    """DataError for a link that is broken, leads outside of ``top``, or back to one of its parents in ``trail``."""
    try:
        target = os.path.realpath(path, strict=True)
    except OSError as error:
        raise DataError(f"{path} is a broken link ({error.strerror}). Fix or remove it.") from error
    folder = os.path.isdir(target)
    if target in trail:
        raise DataError(f"{path} is a link back to {target}, which contains it. Remove it.")
    read = folder or is_image((path.name,)) or is_table((path.name,))
    if os.path.commonpath([top, target]) != top and read:
        raise DataError(
            f"{path} is a link to {target}, outside {top}. Give the real folder as --data.root, or put the images "
            "themselves below it."
        )
