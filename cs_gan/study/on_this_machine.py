"""Runs as processes on this machine: ``--executor local``."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cs_gan.study.executor import Executor, Job
from cs_gan.study.forked import POSSIBLE, WarmParent
from cs_gan.study.plan import Run
from cs_gan.study.process import Request, carry_out, environment


def usable_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_of_a_run(slots: int) -> int:
    """``OMP_NUM_THREADS`` if it is set, otherwise an equal part of the cores."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return int(threads) if threads.isdecimal() and int(threads) else max(1, usable_cores() // slots)


class OnThisMachine(Executor):
    """Each run is started and watched by a thread. On Linux without a GPU it is forked from a warm parent."""

    pause = 0.05

    def __init__(self, request: Request, slots: int, warm: bool = POSSIBLE) -> None:
        self.slots, self._warm = slots, warm
        self._request, self._threads = request, threads_of_a_run(slots)
        self._pool = ThreadPoolExecutor(slots)
        self._parents: dict[str, WarmParent] = {}

    def submit(self, run: Run) -> Job:
        """Start at once: there are as many threads as slots."""
        parent = self._parent(run.command[1]) if self._warm else None
        return _Job(self._pool.submit(carry_out, run, Path.cwd(), self._threads, self._request, parent))

    def _parent(self, script: str) -> WarmParent:
        """The warm parent of a script. A study has one script, and with it one parent."""
        if script not in self._parents:
            self._parents[script] = WarmParent(script, environment(self._threads))
        return self._parents[script]

    def close(self) -> None:
        """Wait for the runs, which have ended or were killed."""
        self._pool.shutdown()
        for parent in self._parents.values():
            parent.close()


class _Job:
    def __init__(self, future: Future[None]) -> None:
        self._future = future

    def problem(self) -> str | None:
        """The folder records its end. Our own error, such as a full disk, ends the study."""
        if not self._future.done():
            return None
        self._future.result()
        return ""
