"""Interleaved timing: variants take turns, so that what a noisy machine does to one it does to all."""

from __future__ import annotations

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
LEAST = 0.02  # seconds; what is faster is called several times in a row


@dataclass(frozen=True)
class Timing:
    """One value per round: seconds of a call, or a ratio of such."""

    rounds: tuple[float, ...]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """First quartile, median, third quartile over the rounds."""
        low, middle, high = np.quantile(self.rounds, (0.25, 0.5, 0.75))
        return float(low), float(middle), float(high)

    @property
    def median(self) -> float:
        """Over the rounds."""
        return self.quartiles[1]

    def relative_to(self, base: Timing) -> Timing:
        """The ratio to ``base`` in each round, which a drift of the machine does not touch."""
        return Timing(tuple(a / b for a, b in zip(self.rounds, base.rounds, strict=True)))


@dataclass(frozen=True)
class Row:
    """One line of a table: a timing, and what it is a multiple of (or None)."""

    name: str
    timing: Timing
    base: Timing | None = None


def table(rows: list[Row]) -> list[list[str]]:
    """A header, then for each row: name, median milliseconds with quartiles, ratio to its base with quartiles."""
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
    """What figures depend on, in a line: card or processor, threads, versions."""
    names: list[str] = []
    with suppress(OSError):
        names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = names[0] if names else platform.machine()
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {name}"
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} threads, torch {torch.__version__}"


def synchronised(run: Variant, device: str) -> Variant:
    """The same, done when it returns: a GPU works on after a call has come back."""
    if device != "cuda":
        return run

    def both() -> None:
        run()
        torch.cuda.synchronize()

    return both


def report(title: str, rows: list[Row], device: str, path: Path | None = None, **figures: object) -> None:
    """Print the table under the machine's line; write it, with more figures, as JSON if a path is given."""
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
        found = {"title": title, "machine": machine(device), "ms": milliseconds, "ratio": ratios, **figures}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=2))


def measure(variants: Mapping[str, Variant], repeats: int, clock: Clock = time.perf_counter) -> dict[str, Timing]:
    """Seconds per call of each variant, in rounds: A B C A B C ...

    Args:
        variants: what to call, by name.
        repeats: rounds, after one that warms up and is not counted.
        clock: ``time.process_time`` leaves out what other processes take; on more than one thread it
            adds threads up, so there use wall time.
    """
    calls = {name: _calls(run, clock) for name, run in variants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, run in variants.items():
            seconds[name].append(_seconds(run, calls[name], clock))
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _calls(run: Variant, clock: Clock) -> int:
    """Warm up, and say how many calls take ``LEAST``."""
    if _seconds(run, 1, clock) > 10 * LEAST:  # too long for the first call's extras to matter
        return 1
    return max(1, math.ceil(LEAST / _seconds(run, 1, clock)))


def _seconds(run: Variant, calls: int, clock: Clock) -> float:
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) / calls
