"""A study of short runs, forked from a warm parent and in fresh processes: wall time, CPU time and the start of a run.

``OMP_NUM_THREADS=1 python -m benchmarks.warm_runs``: 40 runs of train_classifier.py on digits, of one step each.
Both do the same runs, one after the other, and must leave the same weights.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file

from benchmarks.same_runs import same_bits
from cs_gan.study.execute import run_all
from cs_gan.study.lock import STARTER
from cs_gan.study.on_this_machine import OnThisMachine, usable_cores
from cs_gan.study.outcome import read_outcome
from cs_gan.study.plan import Run, plan
from cs_gan.study.process import Request
from cs_gan.study.spec import Case, Study
from cs_gan.study.stop import Stop

ROOT = Path(__file__).parents[1]
SCRIPT = Path("train_classifier.py")
# One step on digits: nearly all of a run is its start and its end.
SETTINGS = {
    "data.name": "digits",
    "data.image_size": 8,
    "data.holdout": 1500,
    "model.name": "cnn_small",
    "model.width": 4,
    "training.steps": 1,
    "training.batch_size": 8,
    "training.checkpoint_every": 0,
    "metrics.rci_ratio": None,
}


class Measured(NamedTuple):
    """Seconds of a whole study, and of each run from its start to its first step."""

    wall: float
    cpu: float
    starts: list[float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="runs at a time (default: one a core)")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        planned = {name: _plan(Path(folder, name), options.runs) for name in ("forked", "fresh")}
        forked, fresh = (measure(runs, options.jobs, warm=name == "forked") for name, runs in planned.items())
        for pair in zip(*planned.values(), strict=True):
            assert same_bits(*(load_file(run.folder / "snapshot.safetensors") for run in pair)), pair[0].name
    print(
        f"{options.runs} runs of one step, {options.jobs} at a time, {os.cpu_count()} cores; the weights are the same\n"
    )
    print("| a run is | wall time, s | CPU time, s | start of a run, median, s |")
    print("|---|---|---|---|")
    rows = {"a fresh process": fresh, "forked": forked}
    for name, measured in rows.items():
        median = statistics.median(measured.starts)
        print(f"| {name} | {measured.wall:.1f} | {measured.cpu:.1f} | {median:.2f} |")
    start = statistics.median(forked.starts) / statistics.median(fresh.starts)
    print(f"| ratio | {forked.wall / fresh.wall:.2f} | {forked.cpu / fresh.cpu:.2f} | {start:.2f} |")
    return 0


def measure(runs: Sequence[Run], jobs: int, *, warm: bool) -> Measured:
    """Execute all runs on this machine."""
    folder = runs[0].folder.parents[1]
    folder.mkdir()
    request, cpu, wall = Request(folder), _cpu_of_children(), time.perf_counter()
    run_all(runs, OnThisMachine(request, jobs, warm=warm), request, Stop(), lambda _run: None, lambda _message: None)
    wall, cpu = time.perf_counter() - wall, _cpu_of_children() - cpu
    for run in runs:
        outcome = read_outcome(run)
        assert outcome.status == "done", outcome
    return Measured(wall, cpu, [_written(run, "config.yaml") - _written(run, STARTER) for run in runs])


def _plan(folder: Path, runs: int) -> list[Run]:
    """Runs that differ in the seed."""
    study = Study(Path(__file__), SCRIPT, None, list(range(runs)), [Case("plain", {}, {})], fixed=SETTINGS)
    return plan(study, folder)


def _written(run: Run, name: str) -> float:
    return (run.folder / name).stat().st_mtime


def _cpu_of_children() -> float:
    """CPU seconds of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
