"""Time whole steps of the training scripts on digits, drawn as RGB images of 32 x 32 pixels."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from benchmarks.timing import TimingRow, Variant, measure, rows_of, synchronised
from cs_gan.training import Session, parse_config

DATA = ("--data.name=digits", "--data.channels=3", "--data.image_size=32", "--tracking.trackers=none")


def task_step(stack: ExitStack, task: Any, config: type[Any], *arguments: str) -> Variant:
    """A step of a task (class) with everything except the log. Later arguments override earlier ones."""
    output = stack.enter_context(tempfile.TemporaryDirectory())
    parsed = parse_config(config, [*DATA, f"--output_dir={output}", *arguments])
    built = task(Session(parsed, stack))
    stack.callback(built.close)
    return partial(built.step, 0)


def task_rows(
    task: Any, config: type[Any], modes: Mapping[str, Sequence[str]], options: argparse.Namespace
) -> list[TimingRow]:
    """Time all modes (name -> arguments) in turns, compared with the first."""
    with ExitStack() as stack:
        steps = {}
        for name, arguments in modes.items():
            step = task_step(stack, task, config, *arguments)
            for _ in range(4 if options.device == "cuda" else 1):  # from then on it runs as a CUDA graph
                step()
            steps[name] = synchronised(step, options.device)
        rows = rows_of(measure(steps, options.repeats))
    if options.device == "cuda":
        torch.cuda.empty_cache()
    return rows
