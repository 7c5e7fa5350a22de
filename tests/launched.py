"""What each of two processes runs: a script with the variables that torchrun sets."""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import sklearn.datasets  # noqa: F401 (here, where it is imported once for both)
import torch.distributed

WORLD = 2


def run(rank: str | int, port: str, script: str, *words: str) -> None:
    """The command line, as process ``rank``. Prints its threads before and after it leaves the process group.

    LATE=<module>:<function> makes the second process late: it waits before each call of that function.
    """
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if int(rank) and "LATE" in os.environ:
        module, name = os.environ["LATE"].split(":")
        delay(importlib.import_module(module), name)
    leave = torch.distributed.destroy_process_group

    def destroy_process_group(*groups: object) -> None:
        print("in the group:", threads())
        leave(*groups)

    torch.distributed.destroy_process_group = destroy_process_group
    code = importlib.import_module(script).main(list(words))
    print("at the end:", threads())
    sys.exit(code)


def delay(module: ModuleType, name: str) -> None:
    """Wait for a second before each call of a function."""
    function = getattr(module, name)

    def late(*args: object) -> object:
        time.sleep(1)
        return function(*args)

    setattr(module, name, late)


def threads() -> str:
    """The names of this process's threads that belong to gloo."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return " ".join(sorted(name for name in names if "gloo" in name)) or "none"
