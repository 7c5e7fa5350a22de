"""Run all runs of a sweep with an executor, until they are done or a stop is requested."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from cs_gan.sweep.executors import Executor, Job
from cs_gan.sweep.lock import in_use
from cs_gan.sweep.node import Request
from cs_gan.sweep.outcome import record_loss
from cs_gan.sweep.plan import Run
from cs_gan.sweep.stop import Stop

Say = Callable[[str], None]


def run_all(
    runs: Sequence[Run], executor: Executor, request: Request, stop: Stop, ended: Callable[[Run], None], say: Say
) -> None:
    """Submit all runs in order, as many at a time as the executor takes.

    ``ended`` is called with each run that has ended, for any reason.
    """
    waiting, active = deque(runs), list[tuple[Run, Job]]()
    told: set[str] = set()
    request.clear()  # from a sweep that was killed
    asked = ""
    try:
        while active or (waiting and not stop.reason):
            if stop.reason and not asked:
                asked = "stop"
                more = " Once more to kill them." if stop.signal else ""
                say(f"{stop.reason}: runs save and end.{more}")
                request.make(asked)
                executor.withdraw([job for _, job in active])
            if stop.at_once and asked == "stop":
                asked = "kill"
                request.make(asked)
            for run, job in list(active):
                problem = job.problem()
                if problem is None:
                    continue
                active.remove((run, job))
                if problem and not asked:  # a cancelled run hasn't failed
                    record_loss(run, problem)
                ended(run)
            while not stop.reason and len(active) < executor.slots and (found := _next(waiting, executor, told, say)):
                active.append(found)
            time.sleep(executor.pause)
    except BaseException:
        request.make("kill")  # our own errors must not leave runs behind
        raise
    finally:
        executor.close()
        request.clear()


def _next(waiting: deque[Run], executor: Executor, told: set[str], say: Say) -> tuple[Run, Job] | None:
    """The first run that the executor already has, or whose folder no other process writes to."""
    for run in list(waiting):
        job = executor.adopt(run)
        if job is None and in_use(run.folder):
            if run.name not in told:
                told.add(run.name)
                say(f"{run.name}: waiting for another process that still writes to it")
            continue
        waiting.remove(run)
        return run, job or executor.submit(run)
    return None
