"""What every executor of runs has in common: a base class, and the check of its options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from cs_gan.errors import ConfigError
from cs_gan.names import nearest_or_all
from cs_gan.study.plan import Run


class Job(Protocol):
    """A submitted run."""

    def problem(self) -> str | None:
        """None before its end; empty if the run's folder says how it ended; otherwise why the folder can't say it."""


class Executor(ABC):
    """Takes runs and executes :func:`~cs_gan.study.process.carry_out` once for each."""

    slots: int  # number of runs it gets at a time
    pause: float  # seconds between checks

    @abstractmethod
    def submit(self, run: Run) -> Job:
        """Hand a run over."""

    def adopt(self, run: Run) -> Job | None:
        """The waiting or running job of an earlier study for this run. By default runs end with their study."""
        return None

    def withdraw(self, jobs: Sequence[Job]) -> None:  # noqa: B027
        """Cancel runs that haven't started. Running ones are stopped by the request's file."""

    def close(self) -> None:  # noqa: B027
        """Clean up everything that belongs to this study."""


def check_options(name: str, options: Mapping[str, Any], known: Collection[str]) -> None:
    """Check the options of an executor.

    Raises:
        ConfigError: for an unknown option, with the nearest name.
    """
    for key in options:
        if key not in known:
            raise ConfigError(
                f"--executor-options {key}: --executor {name} has no such option. {nearest_or_all(key, sorted(known))}"
            )


def missing(package: str, error: ImportError) -> ConfigError:
    """The error for an executor whose package isn't installed."""
    extra = {"submitit": "slurm"}.get(package, package)
    return ConfigError(
        f"--executor {extra} needs {package}, which isn't installed ({error}): pip install {package}, "
        f"or pip install 'cs-gan[{extra}]'."
    )
