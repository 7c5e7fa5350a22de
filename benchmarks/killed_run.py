"""Start a training run, kill it, and find out what it was doing. The run itself is not changed for this."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from cs_gan.runs import RunFolder, read_lines

ROOT = Path(__file__).parents[1]
SAVING, PRUNING = "checkpoints/.partial-*", "checkpoints/.pruned-*"
WRITING = ("*.partial", "grids/*.partial")  # single files
POLL = 0.0005  # seconds; saving a checkpoint takes a few hundredths


class Run:
    """One start of ``train_gan.py`` with its output in a file."""

    def __init__(self, command: list[str], folder: Path, output: Path) -> None:
        self.folder, self.output = RunFolder(folder), output
        self._left = set(self._unfinished(SAVING, PRUNING, *WRITING))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONUNBUFFERED": "1"}
        self.start = time.monotonic()
        with output.open("wb") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.start

    @property
    def began(self) -> str:
        """The step that the run continues from, or "" before it has printed that."""
        found = re.search(r"Continuing from (step \d+)|(Writing to)", self.output.read_text(errors="replace"))
        return (found[1] or "nothing") if found else ""

    def unfinished(self, *patterns: str) -> list[Path]:
        """Files and folders with a temporary name that this start wrote, not one that was killed before."""
        return [path for path, changed in self._unfinished(*patterns) if (path, changed) not in self._left]

    def _unfinished(self, *patterns: str) -> Iterator[tuple[Path, int]]:
        for pattern in patterns:
            for path in self.folder.path.glob(pattern):
                with suppress(FileNotFoundError):  # renamed or removed in the meantime
                    yield path, path.stat().st_mtime_ns

    def wait(self, until: Callable[[], Any]) -> bool:
        """Wait for a condition. Returns False if the run ended first."""
        while not until():
            if self.process.poll() is not None:
                return False
            time.sleep(POLL)
        return True

    def finish(self) -> None:
        """Wait until the run ends, and check that it ended without an error."""
        if self.process.wait() != 0:
            raise SystemExit(
                f"a run ended with exit code {self.process.returncode}:\n{self.output.read_text()[-4000:]}"
            )

    def family(self) -> list[psutil.Process]:
        """The process and all processes that it has started, the launcher first; none if it has ended."""
        try:
            launcher = psutil.Process(self.process.pid)
            return [launcher, *launcher.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self, family: list[psutil.Process]) -> None:
        """Send SIGKILL to all of them, and wait until they are gone."""
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        while any(alive(process) for process in family):
            time.sleep(POLL)


def alive(process: psutil.Process) -> bool:
    """Whether a process still runs. A zombie doesn't."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@dataclass
class Kill:
    """One line of the table."""

    seconds: float
    began: str
    step: str
    doing: str
    continued: str = "-"

    @property
    def saving(self) -> bool:
        """Whether it hit the writing of a checkpoint."""
        return self.doing.startswith("writing checkpoint")


def seen(run: Run, evaluate_every: int) -> tuple[str, str]:
    """The step that a killed run had reached and what it was doing, according to its folder."""
    folder = run.folder
    if not run.began:
        return "-", "starting up"
    log = read_lines(folder.log)
    step = int(log[-1]["step"]) if log else 0
    doing = "training"
    if partial := run.unfinished(SAVING):
        files = ", ".join(sorted(path.stem for path in partial[0].iterdir())) or "no file"
        doing = f"writing checkpoint {int(partial[0].name.rpartition('-')[2])} ({files} so far)"
    elif run.unfinished(PRUNING):
        doing = "pruning checkpoints"
    elif half_written := run.unfinished(*WRITING):
        unfinished = half_written[0].relative_to(folder.path)
        doing = f"writing {unfinished.with_name(unfinished.name.strip('.').removesuffix('.partial'))}"
    elif step % evaluate_every == 0 and all(row["step"] != step for row in read_lines(folder.metrics)):
        doing = "evaluating"
    return str(step), doing
