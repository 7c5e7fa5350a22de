"""Run a function in several processes at once, or code in one; each is a bare interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[1]
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
    command = [sys.executable, "-c", ONE_PROCESS, str(ROOT), module]
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


# Forks for each piece of code that it reads, and answers with its status and what it printed.
FORKS = """
import json, os, sys, tempfile, torch
for line in sys.stdin:
    with tempfile.TemporaryFile() as printed:
        child = os.fork()
        if not child:
            os.dup2(printed.fileno(), 1), os.dup2(printed.fileno(), 2)
            exec(compile(json.loads(line), "code", "exec"), {"__name__": "__main__"})
            sys.exit()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed.seek(0)
        print(json.dumps([status, printed.read().decode()]), flush=True)
"""


class AfterTorch:
    """Runs code, each time in a process that has imported torch and nothing else, and returns what it printed."""

    def __enter__(self) -> AfterTorch:
        command = [sys.executable, "-c", FORKS]
        self._forks = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        return self

    def __call__(self, code: str) -> str:
        assert self._forks.stdin
        assert self._forks.stdout
        self._forks.stdin.write(json.dumps(code) + "\n")
        status, printed = json.loads(self._forks.stdout.readline())
        assert status == 0, printed
        return printed

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._forks.communicate()
