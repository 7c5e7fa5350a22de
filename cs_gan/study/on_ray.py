"""Runs as Ray tasks: ``--executor ray``, on this machine or a cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cs_gan.study.executor import Executor, Job, check_options, missing
from cs_gan.study.plan import Run
from cs_gan.study.process import Request, carry_out

OPTIONS = ("num_cpus", "num_gpus", "memory", "resources", "accelerator_type", "max_retries")
RETRIES = 3  # retries of a run whose node or worker is lost


class OnRay(Executor):
    """Each run is a task that starts its command as a process on a node.

    If RAY_ADDRESS is set, Ray uses that cluster. Otherwise Ray is started here for the time of the study. All
    nodes must see the same files under the same paths, and the same Python.
    """

    pause = 0.2

    def __init__(self, options: Mapping[str, Any], request: Request, slots: int) -> None:
        check_options("ray", options, OPTIONS)
        try:
            import ray
        except ImportError as error:
            raise missing("ray", error) from None
        self.slots, self._ray, self._request = slots, ray, request
        options_of_ray: dict[str, Any] = {"logging_level": "WARNING", "log_to_driver": False}
        if os.environ.get("RAY_ADDRESS"):
            ray.init(address="auto", **options_of_ray)
        else:
            ray.init(address="local", include_dashboard=False, **options_of_ray)
        options_of_task: dict[str, Any] = {"num_cpus": 1, "max_retries": RETRIES, **options}
        self._threads = max(1, int(options_of_task["num_cpus"]))
        self._task = ray.remote(carry_out).options(**options_of_task)

    def submit(self, run: Run) -> Job:
        """Into Ray's queue."""
        return _RayJob(self._ray, self._task.remote(run, Path.cwd(), self._threads, self._request))

    def withdraw(self, jobs: Sequence[Job]) -> None:
        """Cancel tasks. In running tasks this asks the run to stop, like the request."""
        for job in jobs:
            if isinstance(job, _RayJob):
                job.cancel()

    def close(self) -> None:
        """Leave the cluster, or stop the one that was started here."""
        self._ray.shutdown()


class _RayJob:
    def __init__(self, ray: Any, task: Any) -> None:
        self._ray, self._task = ray, task

    def cancel(self) -> None:
        self._ray.cancel(self._task, force=False)

    def problem(self) -> str | None:
        """Ray's error for a task that it couldn't finish."""
        done, _ = self._ray.wait([self._task], timeout=0)
        if not done:
            return None
        try:
            self._ray.get(self._task)
        except self._ray.exceptions.RayError as error:
            return f"lost by Ray: {' '.join(str(error).split())}"
        return ""
