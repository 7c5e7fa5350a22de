"""Locks on folders, which are released when their process is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cs_gan.errors import ConfigError
from cs_gan.files import lock
from cs_gan.runs import WRITER

STARTER = ".starter"  # held in a run's folder by the process that started the run, until it has recorded its end


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Create the folder and lock it, so that only one study uses it.

    Raises:
        ConfigError: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / WRITER) as ours:
        if not ours:
            raise ConfigError(f"another study is still running in {folder}. Wait for it, or give another --output.")
        yield


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Lock a file, which is created if needed. False if another process holds the lock."""
    with path.open("a") as file:
        yield lock(file)


def in_use(folder: Path) -> bool:
    """Whether a process writes to a run's folder. A run whose study was killed continues to the end of its step."""
    return any(_taken(folder / name) for name in (STARTER, WRITER))


def written(folder: Path) -> bool:
    """Whether the run itself writes to it."""
    return _taken(folder / WRITER)


def _taken(path: Path) -> bool:
    try:
        with path.open("r+") as file:  # over NFS, locking needs write permission
            return not lock(file)
    except FileNotFoundError:
        return False
