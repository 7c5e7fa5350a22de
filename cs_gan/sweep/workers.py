"""Runs as processes, some at a time."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType, TracebackType

from cs_gan.sweep.lock import in_use
from cs_gan.sweep.outcome import OUTPUT, record
from cs_gan.sweep.plan import Run

PAUSE = 0.05  # seconds between looks at the processes
# Linux ends a run, as a SIGTERM would, when its sweep is gone however it went. The kernel keeps this over exec.
LEASH = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(143); os.execv(sys.argv[2], sys.argv[2:])"
)


class Stop:
    """Ctrl-C or SIGTERM: asked once, runs save and end; asked again, they are killed."""

    def __init__(self) -> None:
        self.signal = 0
        self.at_once = False
        self._asked_at = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:
            # A shell and a launcher may both pass on the same Ctrl-C.
            self.at_once = self.at_once or time.monotonic() - self._asked_at > 2
            return
        self.signal, self._asked_at = number, time.monotonic()


@dataclass
class _Child:
    run: Run
    process: subprocess.Popen[bytes]
    started: float
    output_from: int


def run_all(
    runs: Sequence[Run],
    jobs: int,
    threads: int,
    stop: Stop,
    ended: Callable[[Run], None],
    say: Callable[[str], None],
) -> None:
    """Run all, ``jobs`` at a time with ``threads`` threads each, until done or stopped.

    ``ended`` is called with each run that has ended, however it did.
    """
    waiting, children = deque(runs), list[_Child]()
    told: set[str] = set()
    with ExitStack() as stack:
        stack.callback(_kill, children)  # nothing is left behind by an error of ours
        asked = False
        while children or (waiting and not stop.signal):
            if stop.signal and not asked:
                asked = True
                say(f"{signal.Signals(stop.signal).name}: runs save and end. Once more to kill them.")
                for child in children:
                    child.process.terminate()
            if stop.at_once:
                _kill(children)
            for child in [child for child in children if child.process.poll() is not None]:
                children.remove(child)
                code, seconds = child.process.returncode, time.monotonic() - child.started
                # One that was killed on the user's behalf hasn't failed.
                record(child.run, 143 if stop.at_once and code < 0 else code, seconds, child.output_from)
                ended(child.run)
            while not stop.signal and len(children) < jobs and (run := _next(waiting, told, say)):
                children.append(_start(run, threads))
            time.sleep(PAUSE)


def _next(waiting: deque[Run], told: set[str], say: Callable[[str], None]) -> Run | None:
    """The first run whose folder no other process writes to."""
    for run in list(waiting):
        if not in_use(run.folder):
            waiting.remove(run)
            return run
        if run.name not in told:
            told.add(run.name)
            say(f"{run.name}: waiting for another process that still writes to it")
    return None


def _start(run: Run, threads: int) -> _Child:
    run.folder.mkdir(parents=True, exist_ok=True)
    command = run.command
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", LEASH, str(os.getpid()), *command]
    with (run.folder / OUTPUT).open("ab") as output:
        output.write(f"$ {shlex.join(run.command)}\n".encode())
        output.flush()
        begin = output.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # the terminal's Ctrl-C comes to the sweep, which passes it on once
        )
    return _Child(run, process, time.monotonic(), begin)


def _kill(children: Sequence[_Child]) -> None:
    for child in children:
        if child.process.poll() is None:
            os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
