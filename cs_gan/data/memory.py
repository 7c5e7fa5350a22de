"""Memory for the decoded images: main memory if they fit, otherwise a memory-mapped file."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor

from cs_gan.errors import DataError

MEMORY_FRACTION = 0.5
"""Images that need more than this share of the available memory go into a mapped file."""


def available_memory() -> float:
    """Bytes that this process can still use without swapping: of the machine, or of its container if less."""
    free: int = psutil.virtual_memory().available
    return min(free, _container_memory())


def allocate(shape: tuple[int, ...]) -> tuple[Tensor, bool]:  # -> (*shape) uint8, and whether it is mapped
    """An uninitialised uint8 tensor, in memory if it fits :data:`MEMORY_FRACTION`, otherwise in a mapped file.

    The file is in ``$TMPDIR`` or ``/var/tmp``, which unlike ``/tmp`` is never in memory. It is unlinked at once, so its
    space is freed with the tensor, even if the process is killed.

    Raises:
        DataError: if the disk has no space for the mapped file.
    """
    size = math.prod(shape)
    if size <= MEMORY_FRACTION * available_memory():
        return torch.empty(shape, dtype=torch.uint8), False
    folder = os.environ.get("TMPDIR") or ("/var/tmp" if Path("/var/tmp").is_dir() else tempfile.gettempdir())
    try:
        descriptor, path = tempfile.mkstemp(prefix="cs_gan_images_", dir=folder)
        try:
            _reserve(descriptor, size)
            return torch.from_file(path, shared=True, size=size, dtype=torch.uint8).view(shape), True
        finally:
            os.close(descriptor)
            os.unlink(path)
    except OSError as error:
        raise DataError(
            f"The images take {size / 2**20:,.0f} MiB, more than half of the available memory, and a mapped file "
            f"in {folder} failed ({error}). Point TMPDIR at a disk with space, or lower --data.limit or "
            "--data.image_size."
        ) from error


def _reserve(descriptor: int, size: int) -> None:
    # A sparse file would end the run with SIGBUS on a full disk. Allocating its blocks gives an error now.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def _container_memory() -> float:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text())  # "max" (a ValueError) means no limit
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return limit - used + int(stat["inactive_file"])
    except (OSError, KeyError, ValueError):
        return math.inf
