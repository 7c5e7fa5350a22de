"""What a process under test runs: train_gan.py, with a fault at a moment that a test has chosen.

The processes are forked from a server that has imported everything once, so that a start takes a second. Faults are
put in from here; the code under test knows nothing of them.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import accelerate.tracking  # noqa: F401
import torch
import torch_fidelity  # noqa: F401
from PIL import Image

import train_gan
from cs_gan import report
from cs_gan.digits import read_digits
from cs_gan.training import parse_config
from tasks.gan import task as gan_task
from tasks.gan.recipe import GanConfig

torch.set_num_threads(1)
os.fsync = lambda _descriptor: None  # as in conftest.py
# What else a start does once, each time the same: all processes that are forked from here have it.
read_digits()
parse_config(GanConfig, [])
Image.init()


@dataclass(frozen=True)
class Fault:
    """What happens at which call.

    Attributes:
        target: ``module:attribute``, such as ``tasks.gan.task:GanTask.step``.
        about: only calls that have this in the repr of their arguments count.
        call: the how manieth of them.
        after: after the call rather than before it.
        what: kill, signal:<name>, signals:<name> (twice), nan, or fill:<file> (until the disk is full).
        rank: in this process only.
    """

    target: str
    about: str = ""
    call: int = 1
    after: bool = False
    what: str = "kill"
    rank: int | None = None

    def install(self) -> None:
        """Put the fault in the target's place."""
        module, path = self.target.split(":")
        owner: Any = importlib.import_module(module)
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        plain, calls = getattr(owner, name), 0

        @wraps(plain)
        def faulty(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += self.about in repr((args, kwargs))
            due = self.about in repr((args, kwargs)) and calls == self.call
            if due and not self.after:
                self._happen()
            result = plain(*args, **kwargs)
            if due and self.after:
                return self._happen(result)
            return result

        setattr(owner, name, faulty)

    def _happen(self, result: Any = None) -> Any:
        kind, _, more = self.what.partition(":")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "signal":
            os.kill(os.getpid(), signal.Signals[more])
        elif kind == "signals":
            os.kill(os.getpid(), signal.Signals[more])
            time.sleep(2.1)  # within two seconds it would be the launcher's echo
            os.kill(os.getpid(), signal.Signals[more])
        elif kind == "fill":
            fill(Path(more))
        elif kind == "nan":
            return {name: value * float("nan") for name, value in result.items()}
        return result


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 8, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def run(arguments: list[str], fault: Fault | None, environment: dict[str, str]) -> None:
    """The whole life of a process; ends with train_gan.py's exit code."""
    os.environ.update(environment)
    gan_task.SAMPLES = 4  # encoding grids of 64 would be a third of a toy run
    # Curves and reports take longer than everything else of a toy run.
    nothing: Callable[..., None] = lambda *_args: None
    report.save_curve = report.save_report = nothing
    if fault and fault.rank in (None, int(environment.get("RANK", "0"))):
        fault.install()
    code = train_gan.main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without the interpreter's own end, which takes a second where torch is loaded
