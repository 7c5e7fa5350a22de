"""Executors of runs: worker processes on this machine, Ray or Slurm, with one interface."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import yaml

from cs_gan.errors import ConfigError
from cs_gan.sweep.node import Request, carry_out
from cs_gan.sweep.plan import Run
from cs_gan.sweep.spec import nearest

NAMES = ("local", "ray", "slurm")


class Job(Protocol):
    """A submitted run."""

    def problem(self) -> str | None:
        """None before its end; empty if the run's folder says how it ended; otherwise why the folder can't say it."""


class Executor(ABC):
    """Takes runs and executes :func:`~cs_gan.sweep.node.carry_out` once for each."""

    slots: int  # number of runs it gets at a time
    pause: float  # seconds between checks

    @abstractmethod
    def submit(self, run: Run) -> Job:
        """Hand a run over."""

    def adopt(self, run: Run) -> Job | None:
        """The waiting or running job of an earlier sweep for this run. By default runs end with their sweep."""
        return None

    def withdraw(self, jobs: Sequence[Job]) -> None:  # noqa: B027
        """Cancel runs that haven't started. Running ones are stopped by the request's file."""

    def close(self) -> None:  # noqa: B027
        """Clean up everything that belongs to this sweep."""


def make_executor(
    name: str, options: Mapping[str, Any], folder: Path, request: Request, jobs: int | None, runs: int
) -> Executor:
    """One of ``NAMES``.

    Args:
        name: name of the executor.
        options: its options.
        folder: the sweep's folder, for files of the executor.
        request: asks runs to stop.
        jobs: maximum number of runs at a time; None lets the executor choose.
        runs: number of runs.

    Raises:
        ConfigError: for an unknown option or a missing package.
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
    """Check the options of an executor.

    Raises:
        ConfigError: for an unknown option, with the nearest name.
    """
    for key in options:
        if key not in known:
            raise ConfigError(
                f"--executor-options {key}: --executor {name} has no such option. {nearest(key, sorted(known))}"
            )


def missing(package: str, error: ImportError) -> ConfigError:
    """The error for an executor whose package isn't installed."""
    extra = {"submitit": "slurm"}.get(package, package)
    return ConfigError(
        f"--executor {extra} needs {package}, which isn't installed ({error}): pip install {package}, "
        f"or pip install 'cs-gan[{extra}]'."
    )


def usable_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Local(Executor):
    """Worker processes on this machine, each started and watched by a thread."""

    pause = 0.05

    def __init__(self, request: Request, jobs: int) -> None:
        self.slots = jobs
        self._request, self._threads = request, max(1, usable_cores() // jobs)
        self._pool = ThreadPoolExecutor(jobs)

    def submit(self, run: Run) -> Job:
        """Start at once: there are as many threads as slots."""
        return _LocalJob(self._pool.submit(carry_out, run, Path.cwd(), self._threads, self._request))

    def close(self) -> None:
        """Wait for the runs, which have ended or were killed."""
        self._pool.shutdown()


class _LocalJob:
    def __init__(self, future: Future[None]) -> None:
        self._future = future

    def problem(self) -> str | None:
        """The folder records its end. Our own error, such as a full disk, ends the sweep."""
        if not self._future.done():
            return None
        self._future.result()
        return ""
