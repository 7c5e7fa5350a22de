"""Run all runs of a study with an executor, until they are done or a stop is requested."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from cs_gan.study.executor import Executor, Job
from cs_gan.study.lock import in_use
from cs_gan.study.outcome import record_loss
from cs_gan.study.plan import Run
from cs_gan.study.process import Request
from cs_gan.study.stop import Stop

Say = Callable[[str], None]


def run_all(
    runs: Sequence[Run], executor: Executor, request: Request, stop: Stop, ended: Callable[[Run], None], say: Say
) -> None:
    """Submit all runs in order, as many at a time as the executor takes.

    ``ended`` is called with each run that has ended, for any reason.
    """
    waiting, active = deque(runs), list[tuple[Run, Job]]()
    announced: set[str] = set()  # runs that wait for another process
    request.clear()  # from a study that was killed
    requested = ""
    try:
        while active or (waiting and not stop.reason):
            if stop.reason and not requested:
                requested = "stop"
                more = " Once more to kill them." if stop.signal else ""
                say(f"{stop.reason}: runs save and end.{more}")
                request.make(requested)
                executor.withdraw([job for _, job in active])
            if stop.at_once and requested == "stop":
                requested = "kill"
                request.make(requested)
            for run, job in list(active):
                problem = job.problem()
                if problem is None:
                    continue
                active.remove((run, job))
                if problem and not requested:  # a cancelled run hasn't failed
                    record_loss(run, problem)
                ended(run)
            while (
                not stop.reason
                and len(active) < executor.slots
                and (started := _next(waiting, executor, announced, say))
            ):
                active.append(started)
            time.sleep(executor.pause)
    except BaseException:
        request.make("kill")  # our own errors must not leave runs behind
        raise
    finally:
        executor.close()
        request.clear()


def _next(waiting: deque[Run], executor: Executor, announced: set[str], say: Say) -> tuple[Run, Job] | None:
    """The first run that the executor already has, or whose folder no other process writes to."""
    for run in list(waiting):
        job = executor.adopt(run)
        if job is None and in_use(run.folder):
            if run.name not in announced:
                announced.add(run.name)
                say(f"{run.name}: waiting for another process that still writes to it")
            continue
        waiting.remove(run)
        return run, job or executor.submit(run)
    return None
