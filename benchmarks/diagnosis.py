"""Reports of ``CodedSmoothing.diagnose`` for good, over-smoothed and nearly plain training (table in docs/method.md).

``python -m benchmarks.diagnosis``: digits with 300 labels, ``cnn_small``, the whole network coded, one seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import torch
from torch.nn import functional as F

from cs_gan import CodedSmoothing, Diagnosis, Linear
from cs_gan.data import batch_indices, train_and_test
from cs_gan.data.labelled import labels_of
from cs_gan.randomness import derive_seed, stream
from cs_gan.supervised import classifier_step
from models import build_classifier

BATCH, LEARNING_RATE = 64, 0.05
CASES: dict[str, tuple[float, float | Linear]] = {
    "no penalty": (0.0, Linear(1.0, 1.5)),
    "mu 0.5, N = K to 1.5 K": (0.5, Linear(1.0, 1.5)),
    "mu 0.8, N = K to 1.5 K": (0.8, Linear(1.0, 1.5)),
    "mu 0.95, N = K to 1.5 K": (0.95, Linear(1.0, 1.5)),
    "mu 0.99, N = K to 1.5 K": (0.99, Linear(1.0, 1.5)),
    "mu 0.5, N = 4 K": (0.5, 4.0),
}


def run(mu: float, ratio: float | Linear, seed: int, steps: int) -> tuple[float, list[Diagnosis]]:
    """Test accuracy in percent, and a report after 10, 50 and 100 % of the steps."""
    train, test = train_and_test(
        "digits", image_size=16, holdout=697, limit=300, limit_seed=derive_seed(seed, "subset")
    )
    torch.manual_seed(derive_seed(seed, "weights"))
    network = build_classifier("cnn_small", 10, channels=1, image_size=16)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    coded = CodedSmoothing(network, [""], ratio)
    reports, train_labels = [], labels_of(train)
    for step in range(steps + 1):
        coded.set_step(step, steps)
        rows = batch_indices(len(train), BATCH, step, seed=seed)
        images, labels = train.batch(rows), train_labels[rows]
        if step in (steps // 10, steps // 2, steps):
            reports.append(coded.diagnose(partial(network, images), partial(F.cross_entropy, target=labels), mu=mu))
        if step < steps:
            generator = stream(seed, "method", step)
            classifier_step(
                network, optimizer, images, labels, generator=generator, num_classes=10, coded=coded, mu=mu
            )  # fmt: skip
            schedule.step()
    with torch.no_grad():
        right = network.eval()(test.batch(range(len(test)))).argmax(1) == test.labels
    return 100 * float(right.float().mean()), reports


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table with the warnings."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnosis", description=__doc__)
    parser.add_argument("--steps", type=int, default=282, help="batches of 64; the default is 60 epochs (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    columns = ("", "accuracy at the end", "share", "headroom", "variance of logits", "affine", "warnings")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name, (mu, ratio) in CASES.items():
        accuracy, reports = run(mu, ratio, given.seed, given.steps)
        blocks = [report.blocks[""] for report in reports]
        figures = [(block.share, block.headroom, block.parts.variance, block.affine_share) for block in blocks]
        cells = [", ".join(f"{value:.2g}" for value in values) for values in zip(*figures, strict=True)]
        warned = ", ".join(dict.fromkeys(found.signature for report in reports for found in report.findings)) or "none"
        print(f"| {name} | {accuracy:.1f} % | {' | '.join(cells)} | {warned} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
