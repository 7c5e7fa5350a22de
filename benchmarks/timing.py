"""Timing of variants in turns, so noise of the machine affects all of them equally. Common options and reports."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

Variant = Callable[[], object]
Clock = Callable[[], float]
LEAST = 0.02  # seconds; faster variants are called several times in a row


@dataclass(frozen=True)
class Timing:
    """One value per round: the seconds of a call, or a ratio of two."""

    rounds: tuple[float, ...]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """First quartile, median, third quartile over the rounds."""
        low, middle, high = np.quantile(self.rounds, (0.25, 0.5, 0.75))
        return float(low), float(middle), float(high)

    @property
    def median(self) -> float:
        """The median over the rounds."""
        return self.quartiles[1]

    def relative_to(self, base: Timing) -> Timing:
        """The ratio to ``base`` in each round. A drift of the machine doesn't change it."""
        return Timing(tuple(a / b for a, b in zip(self.rounds, base.rounds, strict=True)))


@dataclass(frozen=True)
class TimingRow:
    """One line of a table: a timing, and the timing that it is compared with (or None)."""

    name: str
    timing: Timing
    base: Timing | None = None


def rows_of(timings: Mapping[str, Timing], base: str | None = None) -> list[TimingRow]:
    """A row for each timing, compared with the timing ``base`` (default: the first)."""
    base = base or next(iter(timings))
    return [TimingRow(name, timing, None if name == base else timings[base]) for name, timing in timings.items()]


def table(rows: list[TimingRow]) -> list[list[str]]:
    """A header, and for each row: name, median milliseconds with quartiles, ratio to its base with quartiles."""
    lines = [["measurement", "ms", "ms q1", "ms q3", "ratio", "ratio q1", "ratio q3"]]
    for row in rows:
        low, middle, high = (f"{1e3 * value:.4g}" for value in row.timing.quartiles)
        ratio = ["", "", ""]
        if row.base:
            first, median, third = (f"{value:.4f}" for value in row.timing.relative_to(row.base).quartiles)
            ratio = [median, first, third]
        lines.append([row.name, middle, low, high, *ratio])
    return lines


def machine(device: str = "cpu") -> str:
    """The hardware and versions in one line."""
    names: list[str] = []
    with suppress(OSError):
        names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = names[0] if names else platform.machine()
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {name}"
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} threads, torch {torch.__version__}"


def clock_for(device: str) -> Clock:
    """Processor time on one CPU thread, because other processes don't affect it; otherwise wall time."""
    return time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def parser(about: str | None, prog: str | None = None, repeats: int = 5) -> argparse.ArgumentParser:
    """A parser with the options of all speed benchmarks."""
    common = argparse.ArgumentParser(prog, description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    common.add_argument("--repeats", type=int, default=repeats, help=f"number of rounds ({repeats})")
    common.add_argument("--toy", action="store_true", help="tiny sizes, to check that the benchmark runs")
    common.add_argument("--json", type=Path, help="write the results to this file")
    return common


def width_of(width: int | None) -> dict[str, int]:
    """The override of build_gan for ``--width``; none for the network's own width."""
    return {"width": width} if width else {}


def synchronised(run: Variant, device: str) -> Variant:
    """The same variant, but it returns only when the GPU has finished."""
    if device != "cuda":
        return run

    def both() -> None:
        run()
        torch.cuda.synchronize()

    return both


def report(title: str, rows: list[TimingRow], device: str, path: Path | None = None, **figures: object) -> None:
    """Print the table and the figures, and write them as JSON if a path is given."""
    lines = table(rows)
    wide = max(len(line[0]) for line in lines)
    print(f"{title}\n{machine(device)}; medians and quartiles over rounds")
    for name, *cells in lines:
        print(name.ljust(wide), *(cell.rjust(9) for cell in cells))
    for name, value in figures.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    if path:
        milliseconds = {row.name: 1e3 * row.timing.median for row in rows}
        ratios = {row.name: row.timing.relative_to(row.base).median for row in rows if row.base}
        results = {"title": title, "machine": machine(device), "ms": milliseconds, "ratio": ratios, **figures}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2))


def measure(variants: Mapping[str, Variant], repeats: int, clock: Clock = time.perf_counter) -> dict[str, Timing]:
    """Seconds per call of each variant, in rounds: A B C A B C ...

    Args:
        variants: functions by name.
        repeats: number of rounds, after a warm-up that doesn't count.
        clock: wall time, or that of :func:`clock_for`.
    """
    calls = {name: _calls(run, clock) for name, run in variants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, run in variants.items():
            seconds[name].append(_seconds(run, calls[name], clock))
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _calls(run: Variant, clock: Clock) -> int:
    """Warm up, and return the number of calls that take ``LEAST``."""
    if _seconds(run, 1, clock) > 10 * LEAST:  # so long that the extra time of a first call doesn't matter
        return 1
    return max(1, math.ceil(LEAST / _seconds(run, 1, clock)))


def _seconds(run: Variant, calls: int, clock: Clock) -> float:
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) / calls
