"""Sweeps of the stub."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from cs_gan.sweep.__main__ import main

STUB = Path(__file__).parent / "stub.py"
ROOT = Path(__file__).parents[2]


class Bench:
    """A sweep file, and the folder that it fills."""

    def __init__(self, path: Path) -> None:
        self.file = path / "sweep.yaml"
        self.folder = path / "out"

    def write(self, **content) -> None:
        given = {"script": str(STUB), "seeds": 2} | content
        self.file.write_text(
            yaml.safe_dump({key: value for key, value in given.items() if value is not None}, sort_keys=False)
        )

    def command(self, *more: str) -> list[str]:
        return [str(self.file), "--output", str(self.folder), *more]

    def sweep(self, *more: str, **content) -> int:
        if content:
            self.write(**content)
        return main(self.command(*more))

    @property
    def starts(self) -> dict[str, int]:
        """How often each run was started."""
        return {path.parent.name: len(path.read_text().splitlines()) for path in self.folder.glob("runs/*/starts")}

    @property
    def table(self) -> list[dict[str, str]]:
        with (self.folder / "table.csv").open() as file:
            return list(csv.DictReader(file))

    @property
    def markdown(self) -> str:
        return (self.folder / "table.md").read_text()


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def launch(bench, *more):
    command = [sys.executable, "-m", "cs_gan.sweep", *bench.command(*more)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds=180):  # Ray takes a minute to start on a busy machine
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def done(bench):
    return {path.parent.name for path in bench.folder.glob("runs/*/scores.json")}


def running(bench):
    """Process ids of the last starts that are still there."""
    pids = [int(path.read_text().split()[-1]) for path in bench.folder.glob("runs/*/starts")]
    return [pid for pid in pids if Path(f"/proc/{pid}/stat").exists() and " Z " not in _stat(pid)]


def _stat(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return " Z "


def steps(bench):
    """The steps that each run made, in all its starts."""
    found = bench.folder.glob("runs/*/steps")
    return {path.parent.name: [int(line) for line in path.read_text().split()] for path in found}
