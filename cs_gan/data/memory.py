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

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MEMORY_FRACTION = 0.5
"""Images that need more than this share of the available memory go into a mapped file."""


def available_memory() -> float:
    """Bytes that this process can still use without swapping: of the machine, its container or its limit if less."""
    free: int = psutil.virtual_memory().available
    return max(0.0, min(free, _container_memory(), _address_space()))


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


CGROUPS = (
    # version 2, where "max" (a ValueError) means no limit, and version 1
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def _container_memory() -> float:
    for folder, limit, used, cache in CGROUPS:
        try:
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return int((folder / limit).read_text()) - int((folder / used).read_text()) + int(stat[cache])
        except (OSError, KeyError, ValueError):
            continue
    return math.inf


def _address_space() -> float:
    """What is left of a limit on the address space (``ulimit -v``)."""
    if resource is None:
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if limit == resource.RLIM_INFINITY else limit - psutil.Process().memory_info().vms
