"""Replace files atomically, lock them, hash them."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where a second writer is not detected
    fcntl = None  # type: ignore[assignment]


@contextmanager
def replacing(path: Path, *, several_writers: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces ``path`` at the end of the context.

    A reader, a crash or a power cut sees the old file or the new one, never a part. After an error, ``path`` is
    unchanged and the incomplete file is deleted. Only one process at a time may write to ``path``, except with
    ``several_writers``. Then the last to finish wins.
    """
    own = f".{uuid.uuid4().hex}" if several_writers else ""
    partial = path.with_name(
        f".{path.name}{own}.partial"
    )  # in the same folder, because a rename across disks would copy
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut could leave the new name without content
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically, in UTF-8.

    A file name on Linux need not be valid UTF-8. Its invalid bytes are shown escaped.
    """
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def lock(file: IO[Any]) -> bool:
    """Lock an open file until it is closed or the process is killed. False if another process has locked it."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
