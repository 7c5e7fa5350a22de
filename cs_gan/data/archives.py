"""A zip of pictures, read in place. Unsafe or ambiguous entries raise an error that names them."""

from __future__ import annotations

import re
import stat
import threading
import zipfile
from pathlib import Path

from cs_gan.data.names import Parts, is_hidden, is_image, is_other, is_table
from cs_gan.data.sources import ImageTree, check_bytes
from cs_gan.errors import DataError

MAX_RATIO = 500
"""Entries above 1 MiB that unpack to more than this many times their packed size count as zip bombs."""


def zip_tree(path: Path) -> ImageTree:
    """The contents of a zip, read in place and never extracted.

    Raises:
        DataError: naming the entry, for links, paths that aren't plain and relative, duplicate names, and needed
            files that are encrypted or packed beyond :data:`MAX_RATIO`.
    """
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged directory brings BadZipFile, OSError, NotImplementedError, struct.error, ...
        raise DataError(
            f"{path} can't be read as a zip ({error}). It is truncated or damaged. Download it again, or give a folder."
        ) from error
    try:
        entries, folders = _entries(archive, path)
    except BaseException:
        archive.close()
        raise
    lock = threading.Lock()  # ZipFile counts its readers without a lock

    def read(parts: Parts) -> bytes:
        info = entries[parts]
        if problem := content_problem(info):
            raise DataError(f"the entry {problem}")
        check_bytes(info.file_size)
        # Reading a number of bytes limits the unpacked size even if the header is wrong; read() doesn't.
        with lock, archive.open(info) as file:
            return file.read(info.file_size + 1)

    def name(parts: Parts) -> str:
        return f"{path}: entry {entries[parts].filename if parts in entries else '/'.join(parts)}"

    images = [parts for parts in entries if is_image(parts)]
    others = [parts for parts in entries if is_other(parts)]
    tables = [parts for parts in entries if is_table(parts)]
    return ImageTree(path, images, folders, read, name, archive.close, others, tables)


def _entries(
    archive: zipfile.ZipFile, path: Path
) -> tuple[dict[Parts, zipfile.ZipInfo], list[Parts]]:  # -> files by path, folders
    entries: dict[Parts, zipfile.ZipInfo] = {}
    folders: set[Parts] = set()
    for info in archive.infolist():
        parts = tuple(part for part in info.filename.split("/") if part not in ("", "."))
        problem = _problem(info) or (content_problem(info) if is_image(parts) else None)
        if not problem and parts in entries:
            problem = "occurs twice, so it is ambiguous. Zip the images again."
        if problem:
            raise DataError(f"{path}: entry {info.filename} {problem}")
        if not info.is_dir():
            entries[parts] = info
        if not any(map(is_hidden, parts)):
            # A zip need not list its folders, so they are taken from the paths.
            folders |= {parts[:depth] for depth in range(1, len(parts) + info.is_dir())}
    return entries, sorted(folders)


def _problem(info: zipfile.ZipInfo) -> str | None:
    """Why an entry like this is not allowed; None if it is fine."""
    stored = info.orig_filename  # zipfile cuts `filename` at a NUL and, on Windows, replaces backslashes
    if re.match(r"/|[A-Za-z]:", stored) or ".." in stored.split("/") or "\\" in stored or "\0" in stored:
        return (
            "isn't a plain relative path: absolute paths, drive letters, '..' and backslashes could point outside the "
            "archive. Zip the images again, from inside their folder."
        )
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a symbolic link. Zip the images themselves."
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder. Zip only the images."
    return None


def content_problem(info: zipfile.ZipInfo) -> str | None:
    """Why the file of this entry can't be read, judged by its header; None if it can."""
    if info.flag_bits & 0x1:
        return "is encrypted. Unpack the zip with its password and give the folder."
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python unpacks the other methods without a size limit.
        return f"is packed by method {info.compress_type}. Zip the images again, stored or deflated."
    if info.file_size > max(2**20, MAX_RATIO * info.compress_size):
        return (
            f"unpacks from {info.compress_size:,} to {info.file_size:,} bytes, as a zip bomb does. If it is a file "
            "you trust, unpack the zip and give the folder."
        )
    return None
