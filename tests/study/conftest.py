"""Studies of the stub."""

from __future__ import annotations

import csv
import importlib
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from cs_gan.study import executors
from cs_gan.study.__main__ import main
from cs_gan.study.outcome import OUTPUT, record

STUB = Path(__file__).parent / "stub.py"
ROOT = Path(__file__).parents[2]
NO_PLOTS = {"heatmaps": [], "lines": []}  # they take longer than the stub; a test of plots gives ``plots``, maybe None


class Bench:
    """A study file, and the folder that it fills."""

    def __init__(self, path: Path) -> None:
        self.file = path / "study.yaml"
        self.folder = path / "out"
        self.hold = path / "hold"

    def write(self, **content) -> None:
        given = {"script": str(STUB), "seeds": 2, "plots": NO_PLOTS} | content
        self.file.write_text(
            yaml.safe_dump({key: value for key, value in given.items() if value is not None}, sort_keys=False)
        )

    def held(self, *names: str) -> dict[str, str]:
        """The setting that makes these runs wait before their last step, until ``release``."""
        self.hold.mkdir()
        for name in names:
            (self.hold / name).touch()
        return {"hold": str(self.hold)}

    def release(self, *names: str) -> None:
        for name in names:
            (self.hold / name).unlink()

    def command(self, *more: str) -> list[str]:
        return [str(self.file), "--output", str(self.folder), *more]

    def study(self, *more: str, **content) -> int:
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


@pytest.fixture
def time_is_over_when(monkeypatch):
    """Sets the clock of --minutes: a second before ``minutes``, and a second after as soon as a condition holds."""

    def when(condition, minutes=60):
        began = []

        def monotonic():
            if not began:
                return began.append(0) or 0.0
            return 60.0 * minutes + (1.0 if condition() else -1.0)

        clock = SimpleNamespace(monotonic=monotonic)
        monkeypatch.setattr("cs_gan.runs.stop.time", clock)

    return when


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs of real scripts call their ``main`` here, which saves each a Python that imports torch."""

    def carry_out(run):
        run.folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with (run.folder / OUTPUT).open("w") as output, redirect_stdout(output), redirect_stderr(output):
            code = importlib.import_module(Path(run.command[1]).stem).main(run.command[2:])
        record(run, code, time.monotonic() - began, 0)

    class Local(executors.OnThisMachine):
        def submit(self, run):
            carry_out(run)
            return SimpleNamespace(problem=lambda: "")

    monkeypatch.setattr(executors, "OnThisMachine", Local)


@pytest.fixture(scope="session")
def cluster():
    """A Ray cluster with one node of two processors, for all tests: Ray takes many seconds to start."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    # A lost node refuses connections and is given up after three checks; a slow one may take 10 s to answer each.
    checks = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 2, "include_dashboard": False, "_system_config": checks}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def on_cluster(cluster, monkeypatch):
    """Studies with Ray use the cluster."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    return cluster


def launch(bench, *more):
    command = [sys.executable, "-m", "cs_gan.study", *bench.command(*more)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill(process):
    process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):  # not read to their ends, which jobs that go on keep open
        pipe.close()


def wait_for(condition, seconds=180):  # Ray takes a minute to start on a busy machine
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def done(bench):
    return {path.parent.name for path in bench.folder.glob("runs/*/scores.json")}


def starts_of(bench):
    """The process id of each run's last start."""
    starts = {path.parent.name: path.read_text().split() for path in bench.folder.glob("runs/*/starts")}
    return {name: int(words[-1]) for name, words in starts.items() if words}  # empty until the run writes to it


def parent(pid):
    """The process id of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def running(bench):
    """Process ids of the last starts that are still there."""
    pids = starts_of(bench).values()
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


def saved(bench):
    """The step of each run's newest checkpoint."""
    found = {}
    for path in sorted(bench.folder.glob("runs/*/checkpoints/step-*")):
        found[path.parents[1].name] = int(path.name.removeprefix("step-"))
    return found
