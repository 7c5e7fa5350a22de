"""A process that is asked to stop when the one that started it is gone."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# Linux sends SIGTERM to a process when its parent is gone for any reason. The kernel keeps this setting over exec.
LEASH = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(143); os.execv(sys.argv[2], sys.argv[2:])"
)


def leashed(command: Sequence[str]) -> list[str]:
    """The command, on Linux with the leash. The leash is on the thread that starts it."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", LEASH, str(os.getpid()), *command]
