"""Runs as Slurm jobs through submitit: ``--executor slurm``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cs_gan.errors import ConfigError
from cs_gan.files import write_text
from cs_gan.study.executor import Executor, Job, missing
from cs_gan.study.plan import Run
from cs_gan.study.process import Request, carry_out

JOB = ".slurm"  # file in the run's folder: the job submitted for it
PAUSE = 2.0  # seconds between checks, so that Slurm isn't asked too often
MINUTES = 60  # of a job by default; a longer run continues in another job
LIVE = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "PREEMPTED", "REQUEUED", "READY"}


class Carried:
    """The work of a job. A job that is preempted or reaches its time limit is queued again."""

    def __call__(self, run: Run, here: Path, threads: int, request: Request) -> None:
        """On the node."""
        carry_out(run, here, threads, request)

    def checkpoint(self, *arguments: Any) -> Any:
        """The same job again: the run continues from its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


class OnSlurm(Executor):
    """Each run is a job. All nodes must see the same files under the same paths, and the same Python.

    Jobs keep running if the study is killed, and the next study takes them over. Options are those of submitit's
    ``AutoExecutor`` (``timeout_min``, ``gpus_per_node``, ``slurm_partition``, ...), and ``cluster``: ``local``
    tries it without Slurm.
    """

    def __init__(self, options: Mapping[str, Any], folder: Path, request: Request, slots: int) -> None:
        try:
            import submitit
        except ImportError as error:
            raise missing("submitit", error) from None
        parameters = {"cluster": "slurm", "timeout_min": MINUTES, "cpus_per_task": 1, "name": folder.name, **options}
        self._cluster = str(parameters.pop("cluster"))
        self.slots, self.pause = slots, 0.2 if self._cluster == "local" else PAUSE
        self._request, self._threads = request, int(parameters["cpus_per_task"])
        try:
            self._executor = submitit.AutoExecutor(folder.absolute() / "slurm", cluster=self._cluster)
            self._executor.update_parameters(**parameters)
        except (RuntimeError, ValueError, NameError, AssertionError, TypeError) as error:
            raise ConfigError(f"--executor slurm: submitit reports: {error}") from error
        self._kind = {"local": submitit.LocalJob, "slurm": submitit.SlurmJob}.get(self._cluster)

    def submit(self, run: Run) -> Job:
        """Put the run into Slurm's queue and a note of the job into the run's folder."""
        job = self._executor.submit(Carried(), run, Path.cwd(), self._threads, self._request)
        run.folder.mkdir(parents=True, exist_ok=True)
        write_text(run.folder / JOB, f"{self._cluster} {job.job_id}")
        return _SlurmJob(job)

    def adopt(self, run: Run) -> Job | None:
        """The job named by the note in the run's folder."""
        try:
            cluster, job_id = (run.folder / JOB).read_text().split()
        except (OSError, ValueError):
            return None
        if cluster != self._cluster or self._kind is None:
            return None
        job = self._kind(self._executor.folder, job_id)
        if job.paths.result_pickle.exists():
            return None
        if cluster == "local":
            return _Orphan(job) if _exists(int(job_id)) else None
        return _SlurmJob(job) if job.watcher.get_state(job_id, mode="force").upper().split()[0] in LIVE else None

    def withdraw(self, jobs: Sequence[Job]) -> None:
        """Cancel queued jobs. The local executor has no queue."""
        ours = [job for job in jobs if isinstance(job, _SlurmJob)] if self._cluster == "slurm" else []
        if ours:
            ours[0].job.watcher.update()  # state of all jobs in one call
        for job in ours:
            job.cancel_if_pending()


class _SlurmJob:
    def __init__(self, job: Any) -> None:
        self.job, self._cancelled = job, False

    def cancel_if_pending(self) -> None:
        # Slurm's accounting doesn't know a job in its first seconds. If it already runs, it lets its run save.
        if self.job.watcher.get_state(self.job.job_id, mode="cache").upper() in ("PENDING", "UNKNOWN"):
            self.job.cancel(check=False)
            self._cancelled = True

    def problem(self) -> str | None:
        """The error of a job without a result, for example after losing its node or too many time-outs."""
        if self._cancelled:
            return "cancelled"
        if not self.job.done():
            return None
        error = self.job.exception()  # waits some seconds, because the file system may show the result late
        return "" if error is None else f"lost by Slurm: {' '.join(str(error).split())}"


class _Orphan(_SlurmJob):
    """A job of submitit's local executor from another process. Its own class can't check whether it still runs."""

    def problem(self) -> str | None:
        return None if _exists(int(self.job.job_id)) else super().problem()


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
