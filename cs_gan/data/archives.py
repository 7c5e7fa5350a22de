"""A zip of pictures, read in place. Whatever in it could mislead or flood a reader is refused by name."""

from __future__ import annotations

import re
import stat
import threading
import zipfile
from pathlib import Path

from cs_gan.data.layout import Parts, is_hidden, is_image, is_other
from cs_gan.data.sources import ImageTree, check_bytes
from cs_gan.errors import DataError

MAX_RATIO = 500
"""Entries that unfold to more than this many times their packed size, and above 1 MiB, are taken for bombs."""


def zip_tree(path: Path) -> ImageTree:
    """What lies in a zip, read in place and never extracted.

    Raises:
        DataError: naming the entry, for links, paths that aren't plain and relative, names that come twice, and
            files to be read that are encrypted or packed beyond :data:`MAX_RATIO`.
    """
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged directory brings BadZipFile, OSError, NotImplementedError, struct.error, ...
        raise DataError(
            f"{path} can't be read as a zip ({error}). It is truncated or damaged: get it again, or give a folder."
        ) from error
    try:
        entries, folders = _entries(archive, path)
    except BaseException:
        archive.close()
        raise
    lock = threading.Lock()  # ZipFile counts its readers without one

    def read(parts: Parts) -> bytes:
        info = entries[parts]
        if problem := _content_problem(info):
            raise DataError(f"the entry {problem}")
        check_bytes(info.file_size)
        # Asking for a number of bytes bounds what is unpacked even where the header lies about it; read() doesn't.
        with lock, archive.open(info) as file:
            return file.read(info.file_size + 1)

    def name(parts: Parts) -> str:
        return f"{path}: entry {entries[parts].filename if parts in entries else '/'.join(parts)}"

    images = [parts for parts in entries if is_image(parts)]
    others = [parts for parts in entries if is_other(parts)]
    return ImageTree(path, images, folders, read, name, archive.close, others)


def _entries(
    archive: zipfile.ZipFile, path: Path
) -> tuple[dict[Parts, zipfile.ZipInfo], list[Parts]]:  # -> files by path, folders
    entries: dict[Parts, zipfile.ZipInfo] = {}
    folders: set[Parts] = set()
    for info in archive.infolist():
        parts = tuple(part for part in info.filename.split("/") if part not in ("", "."))
        problem = _problem(info) or (_content_problem(info) if is_image(parts) else None)
        if not problem and parts in entries:
            problem = "comes twice, and only one can be meant. Zip the images again."
        if problem:
            raise DataError(f"{path}: entry {info.filename} {problem}")
        if not info.is_dir():
            entries[parts] = info
        if not any(map(is_hidden, parts)):
            # A zip needn't list its folders, so every path tells of those above it.
            folders |= {parts[:depth] for depth in range(1, len(parts) + info.is_dir())}
    return entries, sorted(folders)


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


def _content_problem(info: zipfile.ZipInfo) -> str | None:
    """Why a file can't be read from this entry, by its header alone; None if it may."""
    if info.flag_bits & 0x1:
        return "is encrypted. Unpack the zip with its password and give the folder."
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python unpacks the other methods without a bound.
        return f"is packed by method {info.compress_type}. Zip the images again, stored or deflated."
    if info.file_size > max(2**20, MAX_RATIO * info.compress_size):
        return (
            f"unfolds from {info.compress_size:,} to {info.file_size:,} bytes, as a zip bomb does. If it is a file "
            "you trust, unpack the zip and give the folder."
        )
    return None
