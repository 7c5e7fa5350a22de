"""Replace a file atomically."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces ``path`` at the end of the context.

    A reader, a crash or a power cut sees the old file or the new one, never a part. After an error, ``path`` is
    unchanged and the incomplete file is deleted. Only one process at a time may write to ``path``.
    """
    partial = path.with_name(f".{path.name}.partial")  # in the same folder, because a rename across disks would copy
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
