"""Speed of a step of ``train_classifier.py`` in images per second: ``python -m benchmarks.classifier_step``.

A whole step of the task (batches, augmentation, network, optimiser), plain and with the whole network coded, in float32
and bf16, with and without CUDA graphs. Without a GPU there are no graphs to compare; use ``--toy`` to check that it
runs.
"""

from __future__ import annotations

from benchmarks.task_steps import task_rows
from benchmarks.timing import parser, report
from tasks.classifier.recipe import ClassifierConfig
from tasks.classifier.task import ClassifierTask

CODED = ["--method.coded.blocks=['']", "--method.coded.mu=0.3", "--method.coded.ratio_start=1.5"]
MODES = {
    "eager, batches from the CPU": ["--training.cuda_graph=off", "--data.device=cpu"],
    "eager": ["--training.cuda_graph=off"],
    "graph": [],
    "graph, mixup": ["--method.mixup.alpha=1"],
    "graph, coded": CODED,
}


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    words = parser(__doc__, "python -m benchmarks.classifier_step")
    words.add_argument("--networks", default="preact_resnet18,resnet20", help="separated by commas")
    words.add_argument("--precisions", default="no,bf16", help="separated by commas")
    words.add_argument("--batch", type=int, default=128)
    words.add_argument("--width", type=int, help="of the networks (default: their own)")
    options = words.parse_args(arguments)
    if options.toy:
        options.networks, options.precisions, options.batch, options.width, options.repeats = "resnet20", "no", 8, 4, 1
    shared = ["--data.holdout=500", f"--training.batch_size={options.batch}"]
    shared += [f"--model.width={options.width}"] if options.width else []
    found = []
    for network in options.networks.split(","):
        for precision in options.precisions.split(","):
            given = [*shared, f"--model.name={network}", f"--training.mixed_precision={precision}"]
            modes = {f"{network}, {precision}, {name}": [*given, *mode] for name, mode in MODES.items()}
            found += task_rows(ClassifierTask, ClassifierConfig, modes, options)
    images = {row.name: round(options.batch / row.timing.median) for row in found}
    report("a classifier's step", found, options.device, options.json, images_per_second=images)


if __name__ == "__main__":
    main()
