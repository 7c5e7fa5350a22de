"""Where pictures come from: a folder, a zip read in place, or an array."""

from __future__ import annotations

import io
import os
import re
import stat
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cs_gan.errors import DataError

IMAGE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What counts as an image in a folder or zip, in any case of letters."""
MAX_FILE_BYTES = 256 * 2**20
"""Larger image files are refused before they are read."""
SPLIT_FOLDERS = frozenset({"train", "valid", "val", "validation", "test"})

Parts = tuple[str, ...]  # a path below the root, as its components


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
        _check_bytes(paths[i].stat().st_size)
        return Image.open(io.BytesIO(paths[i].read_bytes()))

    return ImageSource([str(path) for path in paths], open_file, labels, split)


def folder_source(root: Path, split: str) -> ImageSource:
    """All images below ``root``, or below its ``<split>/`` folder; see :func:`arrange`."""
    files = {path.relative_to(root).parts: path for path in _walk(root)}
    order, labels, found = arrange(_images_only(files, root), split, root)
    return files_source([files[parts] for parts in order], split=found, labels=labels)


def has_images(root: Path) -> bool:
    """Whether :func:`folder_source` would find any image below ``root``."""
    return any(_is_image(path.relative_to(root).parts) for path in _walk(root))


def zip_source(path: Path, split: str) -> ImageSource:
    """All images in a zip, or in its ``<split>/`` folder, read in place and never extracted."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} can't be read as a zip ({error}). Get it again, or give a folder.") from error
    try:
        entries = {_entry_parts(info): info for info in archive.infolist() if not info.is_dir()}
        order, labels, found = arrange(_images_only(entries, path), split, path)
        infos = [entries[parts] for parts in order]
        for info in infos:
            if stat.S_ISLNK(info.external_attr >> 16):
                raise DataError(f"{path}: entry {info.filename} is a symbolic link. Zip the images themselves.")
    except BaseException:
        archive.close()
        raise
    lock = threading.Lock()  # ZipFile counts its readers without one

    def open_entry(i: int) -> Image.Image:
        _check_bytes(infos[i].file_size)
        with lock:
            content = archive.read(infos[i])
        return Image.open(io.BytesIO(content))

    names = [f"{path}: entry {info.filename}" for info in infos]
    return ImageSource(names, open_entry, labels, found, archive.close)


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


def _natural_key(name: str) -> tuple[list[str | int], str]:
    # Text and digits alternate, text first, so equal positions always compare; the name itself settles 1 and 01.
    return [int(run) if run.isdigit() else run for run in re.split(r"([0-9]+)", name)], name


def _shared_depth(entries: Sequence[Parts], depth: int, stop: frozenset[str] = frozenset()) -> int:
    while len({parts[depth] if len(parts) > depth + 1 else None for parts in entries}) == 1:
        shared = entries[0][depth]
        if len(entries[0]) <= depth + 1 or shared in stop:
            break
        depth += 1
    return depth


def _images_only(entries: Iterable[Parts], root: Path) -> list[Parts]:
    kept = [parts for parts in entries if _is_image(parts)]
    if not kept:
        raise DataError(f"{root} holds no images. Looked, at any depth, for {', '.join(IMAGE_EXTENSIONS)}.")
    return kept


def _is_image(parts: Parts) -> bool:
    """Named as an image, and neither hidden nor one of macOS's resource forks."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return bool(parts) and not hidden and parts[-1].lower().endswith(IMAGE_EXTENSIONS)


def _entry_parts(info: zipfile.ZipInfo) -> Parts:
    return tuple(part for part in info.filename.split("/") if part)


def _walk(root: Path) -> Iterator[Path]:
    """Files below ``root``, through linked folders too, each folder once so that a loop of links ends."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} can't be listed ({error.strerror}). Check its permissions.") from error

    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        folders.sort()
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(folder, file) for file in files)


def _check_bytes(size: int) -> None:
    if size == 0:
        raise DataError("the file is empty. Delete or replace it.")
    if size > MAX_FILE_BYTES:
        raise DataError(f"the file takes {size / 2**20:,.0f} MiB; the limit is {MAX_FILE_BYTES // 2**20} MiB.")
