"""Run a function in several processes at once, or code in one, in an interpreter that pytest isn't in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[1]
# Imports the module once, then parts into a process for each rank. Some wheels install a package named tests, which
# would come before this folder in a bare interpreter.
RANKS = """
import importlib, os, sys, types
root, module, world, *given = sys.argv[1:]
sys.path.insert(0, root)
sys.modules["tests"] = types.ModuleType("tests")
sys.modules["tests"].__path__ = [root + "/tests"]
run = importlib.import_module(module).run
children = []
for rank in range(int(world)):
    children.append(os.fork())
    if not children[-1]:
        run(rank, *given)
        sys.exit()
failed = [rank for rank, child in enumerate(children) if os.waitpid(child, 0)[1]]
sys.exit(f"ranks that failed: {failed}" if failed else 0)
"""


def run_in_processes(module: str, world: int, *given: object) -> str:
    """Call a module's ``run(rank, *given)``, ``given`` as text, in ``world`` processes; all must end well.

    Returns what they printed. Every import that the module does at its top is done once for all of them.
    """
    environment = {"GLOO_SOCKET_IFNAME": "lo"} | os.environ
    command = [sys.executable, "-c", RANKS, str(ROOT), module, str(world), *map(str, given)]
    ranks = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        printed, errors = ranks.communicate(timeout=120)
    finally:
        with suppress(ProcessLookupError):  # none is left
            os.killpg(ranks.pid, signal.SIGKILL)
    assert ranks.returncode == 0, errors
    return printed


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
