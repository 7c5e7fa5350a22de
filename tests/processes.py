"""Run a function in several processes at once, or code in one, in an interpreter that pytest isn't in."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[1]
# Processes are forked from a server that has imported everything once.
_FORK = multiprocessing.get_context("forkserver")
_FORK.set_forkserver_preload(
    ["tests.reliability.child", "tasks.gan.commands", "tasks.classifier.scores", "tasks.encoder.scores"]
)


class Forked:
    """Processes that run at once, each calling ``call(*words)``; what each prints is in a file."""

    def __init__(
        self, call: Callable[..., object], words: Sequence[tuple[object, ...]], outputs: Sequence[Path]
    ) -> None:
        self.outputs = outputs
        self.processes: list[BaseProcess] = []
        for given, output in zip(words, outputs, strict=True):
            output.unlink(missing_ok=True)
            self.processes.append(_FORK.Process(target=_printing_to, args=(output, call, given)))
            self.processes[-1].start()

    def wait(self, seconds: float = 120) -> list[int | None]:
        """The exit codes; -9 is SIGKILL's."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes

    def said(self, rank: int = 0) -> str:
        """What a process printed, on stdout and stderr."""
        return self.outputs[rank].read_text()


def run_in_processes(module: str, world: int, *given: object, code: int = 0) -> str:
    """Call a module's ``run(rank, *given)``, ``given`` as text, in ``world`` processes; all must end with ``code``.

    Returns what they printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = [(module, dict(os.environ), rank, *map(str, given)) for rank in range(world)]
        ranks = Forked(_call_run, words, [Path(folder, str(rank)) for rank in range(world)])
        codes = ranks.wait()
        printed = "".join(ranks.said(rank) for rank in range(world))
    assert codes == [code] * world, printed
    return printed


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _printing_to(output: Path, call: Callable[..., object], words: tuple[object, ...]) -> None:
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    call(*words)


def _call_run(module: str, environment: dict[str, str], *words: object) -> None:
    os.environ.update({"GLOO_SOCKET_IFNAME": "lo"} | environment)
    importlib.import_module(module).run(*words)


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
