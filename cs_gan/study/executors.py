"""Executors of runs: processes on this machine, Ray or Slurm, with one interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cs_gan.errors import ConfigError
from cs_gan.study.executor import Executor, check_options
from cs_gan.study.on_ray import OnRay
from cs_gan.study.on_slurm import OnSlurm
from cs_gan.study.on_this_machine import OnThisMachine, usable_cores
from cs_gan.study.process import Request

NAMES = ("local", "ray", "slurm")


def make_executor(
    name: str, options: Mapping[str, Any], folder: Path, request: Request, jobs: int | None, runs: int
) -> Executor:
    """One of ``NAMES``.

    Args:
        name: name of the executor.
        options: its options.
        folder: the study's folder, for files of the executor.
        request: asks runs to stop.
        jobs: maximum number of runs at a time; None lets the executor choose.
        runs: number of runs.

    Raises:
        ConfigError: for an unknown option or a missing package.
    """
    if name == "ray":
        return OnRay(options, request, jobs or runs)
    if name == "slurm":
        return OnSlurm(options, folder, request, jobs or runs)
    check_options(name, options, ())
    return OnThisMachine(request, jobs or usable_cores())


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
