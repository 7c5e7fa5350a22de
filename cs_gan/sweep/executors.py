"""What runs the runs: worker processes on this machine, Ray, or Slurm, behind one interface."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import yaml

from cs_gan.errors import ConfigError
from cs_gan.sweep.node import Request, carry_out
from cs_gan.sweep.plan import Run

NAMES = ("local", "ray", "slurm")


class Job(Protocol):
    """A run that was handed over."""

    def problem(self) -> str | None:
        """None before its end; nothing where the run's folder says how it ended; else why it can't."""


class Executor(Protocol):
    """Takes runs and has :func:`~cs_gan.sweep.node.carry_out` done for each, somewhere, once."""

    slots: int  # how many it is given at a time
    pause: float  # seconds between looks at them

    def submit(self, run: Run) -> Job:
        """Hand a run over."""

    def adopt(self, run: Run) -> Job | None:
        """The job of an earlier sweep that is still to do this run, or does it."""

    def withdraw(self, jobs: Sequence[Job]) -> None:
        """Take back what hasn't begun; what has is asked by the request's file."""

    def close(self) -> None:
        """Leave nothing behind that a sweep has to answer for."""


def make_executor(
    name: str, options: Mapping[str, Any], folder: Path, request: Request, jobs: int | None, runs: int
) -> Executor:
    """One of ``NAMES``.

    Args:
        name: which.
        options: the executor's own.
        folder: the sweep's, for what the executor must keep.
        request: how runs are asked to stop.
        jobs: at most so many at a time; None leaves it to the executor.
        runs: how many there are.

    Raises:
        ConfigError: for an option that it doesn't know, or a package that is missing.
    """
    if name == "ray":
        from cs_gan.sweep.on_ray import OnRay

        return OnRay(options, request, jobs or runs)
    if name == "slurm":
        from cs_gan.sweep.on_slurm import OnSlurm

        return OnSlurm(options, folder, request, jobs or runs)
    check_options(name, options, ())
    return Local(request, jobs or usable_cores())


def read_options(words: Sequence[str]) -> dict[str, Any]:
    """``["num_gpus=0.5"]`` -> ``{"num_gpus": 0.5}``.

    Raises:
        ConfigError: for a word without ``=``.
    """
    options = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise ConfigError(f"--executor-options {word}: write key=value, such as num_gpus=1.")
        options[key] = yaml.safe_load(value)
    return options


def check_options(name: str, options: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse what an executor doesn't know.

    Raises:
        ConfigError: with the nearest.
    """
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1) or sorted(known)
            hint = f"Did you mean {near[0]}?" if len(near) == 1 else f"There are {', '.join(near) or 'none'}."
            raise ConfigError(f"--executor-options {key}: --executor {name} has no such option. {hint}")


def missing(package: str, error: ImportError) -> ConfigError:
    """What to say of an executor whose package isn't installed."""
    extra = {"submitit": "slurm"}.get(package, package)
    return ConfigError(
        f"--executor {extra} needs {package}, which isn't installed ({error}): pip install {package}, "
        f"or pip install 'cs-gan[{extra}]'."
    )


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Local:
    """Worker processes on this machine, each started and watched by a thread."""

    pause = 0.05

    def __init__(self, request: Request, jobs: int) -> None:
        self.slots = jobs
        self._request, self._threads = request, max(1, usable_cores() // jobs)
        self._pool = ThreadPoolExecutor(jobs)

    def submit(self, run: Run) -> Job:
        """Begin at once: there are as many threads as slots."""
        return _LocalJob(self._pool.submit(carry_out, run, Path.cwd(), self._threads, self._request))

    def adopt(self, run: Run) -> Job | None:
        """Runs end with their sweep here."""
        return None

    def withdraw(self, jobs: Sequence[Job]) -> None:
        """All have begun."""

    def close(self) -> None:
        """Wait for the runs, which have ended or were killed."""
        self._pool.shutdown()


class _LocalJob:
    def __init__(self, future: Future[None]) -> None:
        self._future = future

    def problem(self) -> str | None:
        """Its end is in the folder; an error of ours, such as a full disk, ends the sweep."""
        if not self._future.done():
            return None
        self._future.result()
        return ""
