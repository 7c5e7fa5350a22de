"""A zip of pictures, read in place. Whatever in it could mislead or flood a reader is refused by name."""

from __future__ import annotations

import io
import re
import stat
import threading
import zipfile
from pathlib import Path

from PIL import Image

from cs_gan.data.layout import Parts, arrange, images_only, is_image
from cs_gan.data.sources import ImageSource, check_bytes
from cs_gan.errors import DataError

MAX_RATIO = 500
"""Entries that unfold to more than this many times their packed size, and above 1 MiB, are taken for bombs."""


def zip_source(path: Path, split: str) -> ImageSource:
    """All images in a zip, or in its ``<split>/`` folder, read in place and never extracted.

    Raises:
        DataError: naming the entry, for links, paths that aren't plain and relative, names that come twice, and
            images that are encrypted or packed beyond :data:`MAX_RATIO`.
    """
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged directory brings BadZipFile, OSError, NotImplementedError, struct.error, ...
        raise DataError(
            f"{path} can't be read as a zip ({error}). It is truncated or damaged: get it again, or give a folder."
        ) from error
    try:
        entries = _entries(archive, path)
        order, labels, found = arrange(images_only(entries, path), split, path)
    except BaseException:
        archive.close()
        raise
    infos = [entries[parts] for parts in order]
    lock = threading.Lock()  # ZipFile counts its readers without one

    def open_entry(i: int) -> Image.Image:
        check_bytes(infos[i].file_size)
        # Asking for a number of bytes bounds what is unpacked even where the header lies about it; read() doesn't.
        with lock, archive.open(infos[i]) as file:
            content = file.read(infos[i].file_size + 1)
        return Image.open(io.BytesIO(content))

    names = [f"{path}: entry {info.filename}" for info in infos]
    return ImageSource(names, open_entry, labels, found, archive.close)


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[Parts, zipfile.ZipInfo]:
    entries: dict[Parts, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        parts = tuple(part for part in info.filename.split("/") if part not in ("", "."))
        problem = _problem(info) or (_image_problem(info) if is_image(parts) else None)
        if not problem and parts in entries:
            problem = "comes twice, and only one can be meant. Zip the images again."
        if problem:
            raise DataError(f"{path}: entry {info.filename} {problem}")
        if not info.is_dir():
            entries[parts] = info
    return entries


def _problem(info: zipfile.ZipInfo) -> str | None:
    """Why no entry may look like this, whatever it holds; None if it is fine."""
    stored = info.orig_filename  # zipfile cuts `filename` at a NUL and, on Windows, turns its backslashes
    if re.match(r"/|[A-Za-z]:", stored) or ".." in stored.split("/") or "\\" in stored or "\0" in stored:
        return (
            "isn't a plain relative path: absolute paths, drive letters, '..' and backslashes could lead out of the "
            "archive. Zip the images again, from within their folder."
        )
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a symbolic link. Zip the images themselves."
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder. Zip the images alone."
    return None


def _image_problem(info: zipfile.ZipInfo) -> str | None:
    """Why an image can't be read from this entry, by its header alone; None if it may."""
    if info.flag_bits & 0x1:
        return "is encrypted. Unpack the zip with its password and give the folder."
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python unpacks the other methods without a bound.
        return f"is packed by method {info.compress_type}. Zip the images again, stored or deflated."
    if info.file_size > max(2**20, MAX_RATIO * info.compress_size):
        return (
            f"unfolds from {info.compress_size:,} to {info.file_size:,} bytes, as a zip bomb does. If it is an image "
            "you trust, unpack the zip and give the folder."
        )
    return None
