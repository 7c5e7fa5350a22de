"""Run a function in several processes at once, each a bare interpreter, as a launcher would start it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Some wheels install a package named tests, which would come before this folder in a bare interpreter.
ONE_PROCESS = """
import importlib, sys, types
root, module, rank, *given = sys.argv[1:]
sys.path.insert(0, root)
sys.modules["tests"] = types.ModuleType("tests")
sys.modules["tests"].__path__ = [root + "/tests"]
importlib.import_module(module).run(int(rank), *given)
"""


def run_in_processes(module: str, world: int, *given: object) -> None:
    """Call a module's ``run(rank, *given)``, ``given`` as text, in ``world`` processes; all must end well."""
    environment = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"} | os.environ
    command = [sys.executable, "-c", ONE_PROCESS, str(Path(__file__).parents[1]), module]
    processes = [
        subprocess.Popen([*command, str(rank), *map(str, given)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(world)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * world, "\n".join(errors)
