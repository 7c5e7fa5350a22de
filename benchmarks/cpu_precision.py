"""ResNet-20 in bfloat16 against float32 on a CPU: ``python -m benchmarks.cpu_precision``.

A forward and backward of the whole network, in channels_last. ``ONEDNN_MAX_CPU_ISA=AVX2`` (or ``AVX512_CORE``) makes
oneDNN compute as on an older CPU, on which bfloat16 has no instructions of its own.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.timing import measure, parser, report, rows_of
from models import build_classifier


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    words = parser(__doc__, "python -m benchmarks.cpu_precision", repeats=5)
    words.add_argument("--batch", type=int, default=64)
    options = words.parse_args(arguments)
    if options.toy:
        options.batch, options.repeats = 2, 1
    torch.manual_seed(0)
    network = build_classifier("resnet20", 10).to(memory_format=torch.channels_last)
    images = torch.randn(options.batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(options.batch) % 10

    def step(mixed: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            scores = network(images)
        F.cross_entropy(scores.float(), labels).backward()

    rows = rows_of(measure({"float32": partial(step, False), "bf16": partial(step, True)}, options.repeats))
    report("ResNet-20, forward and backward", rows, "cpu", options.json)


if __name__ == "__main__":
    main()
