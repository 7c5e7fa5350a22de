"""Who writes to a folder: a lock that a kill frees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cs_gan.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows, where two sweeps in one folder are not noticed
    fcntl = None  # type: ignore[assignment]


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder and hold it: one sweep at a time.

    Raises:
        ConfigError: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(
                    f"another sweep is still running in {folder}: wait for it, or give another --output."
                ) from None
        yield


def in_use(folder: Path) -> bool:
    """Whether a process writes to a run's folder: a run whose sweep was killed goes on to the end of its step."""
    if fcntl is None:
        return False
    try:
        with (folder / ".lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
