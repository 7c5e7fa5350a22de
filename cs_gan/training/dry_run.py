"""``--dry-run``: one step, and an estimate for the whole run."""

from __future__ import annotations

import math
import resource
import sys
import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from cs_gan.training.capture import WARM_UP
from cs_gan.training.task import Task


def dry_run(task: Task[Any]) -> int:
    """Run one step twice, first to count FLOPs, then to time it, and print the result. Writes nothing."""
    session, training = task.session, task.session.config.training
    with counting() as counter:
        task.step(0)
    for _ in range(WARM_UP if session.device.type == "cuda" else 0):  # warm up until the step runs as a graph
        task.step(0)
    _wait(session.device)
    start = time.perf_counter()
    task.step(0)
    _wait(session.device)
    seconds = time.perf_counter() - start
    evaluations = 1 + math.ceil(training.steps / (training.evaluate_every or training.steps))
    scoring = task.scoring_seconds(evaluations)
    if session.is_main:
        counts = {name: sum(p.numel() for p in module.parameters()) for name, module in task.modules.items()}
        sizes = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
        flops = counter.get_total_flops()
        lines = [
            *task.describe(),
            session.describe(),
            f"parameters   {sizes}",
            f"FLOPs        {_readable(flops)} per step and process, {_readable(flops / seconds)} a second",
            f"memory       {_readable(_peak_memory(session.device), 1024)}B at its peak, per process",
            f"time         {seconds:.3g} s per step, {task.images_per_step / seconds:,.0f} images a second; "
            f"{training.steps:,} steps take {_hours(seconds * training.steps)}",
        ]
        if scoring:
            lines.append(
                f"             and {evaluations} evaluations and the full one at the end about {_hours(scoring)}, "
                "the real images' features (once, then cached) apart"
            )
        lines.append(f"Nothing was written. Without --dry-run the run goes to {session.folder.path}")
        print("\n".join(lines))
    return 0


class _Flat:
    """Replaces the counter's module tracker, which fails on ``autograd.grad`` inside a module."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *args: object) -> None: ...


def counting() -> FlopCounterMode:
    """A FLOP counter that works with gradients inside modules."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _Flat()  # type: ignore[assignment]
    return counter


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)


def _readable(value: float, base: int = 1000) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if value < base:
            return f"{value:.3g} {unit}"
        value /= base
    return f"{value:.3g} P"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
