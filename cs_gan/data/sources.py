"""Where pictures come from: an array, files, a folder. Zips are in :mod:`cs_gan.data.archives`."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cs_gan.data.layout import arrange, images_only, is_hidden, is_image
from cs_gan.errors import DataError

MAX_FILE_BYTES = 256 * 2**20
"""Larger image files are refused before they are read."""


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class ImageSource:
    """Pictures in a fixed order, opened one at a time, from any thread.

    Attributes:
        names: what to call each picture in an error.
        open: opens picture ``i``; it may raise whatever Pillow or the file system raise.
        labels: class numbers, or None.
        split: the split these are, ``"all"`` where the source isn't split.
        close: lets go of the file behind it.
    """

    names: Sequence[str]
    open: Callable[[int], Image.Image]
    labels: Sequence[int] | None
    split: str
    close: Callable[[], None] = _nothing

    def __len__(self) -> int:
        return len(self.names)


def array_source(
    pixels: npt.NDArray[np.uint8], labels: Iterable[int], *, name: str, split: str
) -> ImageSource:  # pixels (n, H, W) or (n, H, W, 3)
    """Pictures that lie in an array already."""
    names = [f"{name} image {i}" for i in range(len(pixels))]
    return ImageSource(names, lambda i: Image.fromarray(pixels[i]), [int(label) for label in labels], split)


def files_source(paths: Sequence[Path], *, split: str, labels: Sequence[int] | None = None) -> ImageSource:
    """Pictures that are files, in the order given."""

    def open_file(i: int) -> Image.Image:
        check_bytes(paths[i].stat().st_size)
        return Image.open(io.BytesIO(paths[i].read_bytes()))

    return ImageSource([str(path) for path in paths], open_file, labels, split)


def folder_source(root: Path, split: str) -> ImageSource:
    """All images below ``root``, or below its ``<split>/`` folder; see :func:`~cs_gan.data.layout.arrange`.

    ``root`` may be a link. Links below it are followed as long as they stay below it, each folder once; those
    that are broken, run in a circle or lead out of ``root`` are refused, so that a data set is what its folder
    holds and nothing else.

    Raises:
        DataError: naming such a link, or a folder that can't be listed, or if there are no images.
    """
    files = {path.relative_to(root).parts: path for path in _walk(root)}
    order, labels, found = arrange(images_only(files, root), split, root)
    return files_source([files[parts] for parts in order], split=found, labels=labels)


def has_images(root: Path) -> bool:
    """Whether :func:`folder_source` would find any image below ``root``."""
    return any(True for _ in _walk(root))


def check_bytes(size: int) -> None:
    """DataError unless an image file of ``size`` bytes is worth reading."""
    if size == 0:
        raise DataError("the file is empty. Delete or replace it.")
    if size > MAX_FILE_BYTES:
        raise DataError(f"the file takes {size / 2**20:,.0f} MiB; the limit is {MAX_FILE_BYTES // 2**20} MiB.")


def _walk(root: Path) -> Iterator[Path]:
    """Image files below ``root``, hidden ones left out."""
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
                yield from below(path, (*trail, real))
            elif is_image((entry.name,)):
                if not entry.is_file():
                    raise DataError(f"{path} is named as an image but isn't a file. Remove or rename it.")
                yield path

    return below(root, ())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:  # knows links and folders without asking the disk again
            return sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} can't be listed ({error.strerror}). Check its permissions.") from error


def _check_link(path: Path, top: str, trail: Sequence[str]) -> None:
    """Refuse a link that is broken, leads out of ``top``, or back to one of ``trail``: the folders it lies in."""
    try:
        target = os.path.realpath(path, strict=True)
    except OSError as error:
        raise DataError(f"{path} is a link that leads nowhere ({error.strerror}). Mend or remove it.") from error
    folder = os.path.isdir(target)
    if target in trail:
        raise DataError(f"{path} is a link back to {target}, which holds it. Remove it.")
    if os.path.commonpath([top, target]) != top and (folder or is_image((path.name,))):
        raise DataError(
            f"{path} is a link to {target}, outside {top}. Give the real folder as --data.root, or put the images "
            "themselves below it."
        )
