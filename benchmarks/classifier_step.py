"""Images a second of ``train_classifier.py``'s step: ``python -m benchmarks.classifier_step``.

A whole step of the task (batches, augmentation, network, optimiser), plain and with the whole network coded, in float32
and bf16, with CUDA graphs and without. Without a GPU there are no graphs to compare: ``--toy`` only shows that it runs.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

import train_classifier
from benchmarks.timing import Row, Variant, measure, report, synchronised
from cs_gan.training import ClassifierConfig, Session, parse_config

CODED = ["--method.coded.blocks=['']", "--method.coded.mu=0.3", "--method.coded.ratio_start=1.5"]
MODES = {
    "eager, batches from the CPU": ["--training.cuda_graph=off", "--data.device=cpu"],
    "eager": ["--training.cuda_graph=off"],
    "graph": [],
    "graph, mixup": ["--method.mixup.alpha=1"],
    "graph, coded": CODED,
}


def task_step(stack: ExitStack, *arguments: str) -> Variant:
    """A step of a real task on digits, drawn as RGB images of 32 x 32 pixels."""
    base = ["--data.name=digits", "--data.channels=3", "--data.image_size=32", "--data.holdout=500"]
    base += [f"--output_dir={stack.enter_context(tempfile.TemporaryDirectory())}", "--tracking.trackers=none"]
    config = parse_config(ClassifierConfig, [*base, *arguments])
    task = train_classifier.ClassifierTask(config, Session(config, stack))
    stack.callback(task.close)
    return partial(task.step, 0)


def rows(network: str, precision: str, options: argparse.Namespace) -> list[Row]:
    """Every mode of one network, taking turns, as multiples of the first."""
    shared = [f"--model.name={network}", f"--training.batch_size={options.batch}"]
    shared += [
        f"--training.mixed_precision={precision}",
        *([f"--model.width={options.width}"] if options.width else []),
    ]
    with ExitStack() as stack:
        steps = {}
        for name, given in MODES.items():
            step = task_step(stack, *shared, *given)
            for _ in range(1 if options.device == "cpu" else 4):  # until it runs as a graph
                step()
            steps[f"{network}, {precision}, {name}"] = synchronised(step, options.device)
        timings = measure(steps, options.repeats)
    first = next(iter(timings))
    return [Row(name, timing, None if name == first else timings[first]) for name, timing in timings.items()]


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classifier_step", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--networks", default="preact_resnet18,resnet20")
    parser.add_argument("--precisions", default="no,bf16")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=int, help="of the networks; their own by default")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (5)")
    parser.add_argument("--toy", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.toy:
        options.networks, options.precisions, options.batch, options.width, options.repeats = "resnet20", "no", 8, 4, 1
    found = []
    for network in options.networks.split(","):
        for precision in options.precisions.split(","):
            found += rows(network, precision, options)
            if options.device == "cuda":
                torch.cuda.empty_cache()
    images = {row.name: round(options.batch / row.timing.median) for row in found}
    report("a classifier's step", found, options.device, options.json, images_per_second=images)


if __name__ == "__main__":
    main()
