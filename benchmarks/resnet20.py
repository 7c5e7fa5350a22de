"""ResNet-20's shortcuts against a slice and a pad in each block, and bfloat16 against float32.

``python -m benchmarks.resnet20``. A forward and backward of the whole network, in channels_last. Both kinds of shortcut
compute the same bits. With ``ONEDNN_MAX_CPU_ISA=AVX512_CORE`` oneDNN computes as on a CPU without bfloat16.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import TimingRow, clock_for, measure, parser, report, synchronised
from models import build_classifier
from models.residual_classifiers import ResidualBlock


class SlicedBlock(ResidualBlock):
    """The block as it was before: its shortcut's gradient is not in channels_last."""

    def forward(self, x: Tensor) -> Tensor:  # (K, in, H, W) -> (K, out, H / stride, W / stride)
        """Add the residual branch to the sliced and padded input, then ReLU."""
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(h + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.lacking)))


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    words = parser(__doc__, "python -m benchmarks.resnet20", repeats=15)
    words.add_argument("--batch", type=int, default=64)
    options = words.parse_args(arguments)
    if options.toy:
        options.batch, options.repeats = 2, 1
    torch.manual_seed(0)
    network = build_classifier("resnet20", 10).to(options.device).to(memory_format=torch.channels_last)
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    images = torch.randn(options.batch, 3, 32, 32, device=options.device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(options.batch, device=options.device) % 10

    def step(kind: type[ResidualBlock], mixed: bool) -> None:
        for block in blocks:
            block.__class__ = kind
        with torch.autocast(options.device, torch.bfloat16, enabled=mixed):
            scores = network(images)
        F.cross_entropy(scores.float(), labels).backward()

    kinds = {"slice and pad": SlicedBlock, "now": ResidualBlock}
    calls = {
        f"{precision}, {name}": partial(step, kind, precision == "bf16")
        for precision in ("float32", "bf16")
        for name, kind in kinds.items()
    }
    variants = {name: synchronised(call, options.device) for name, call in calls.items()}
    timings = measure(variants, options.repeats, clock_for(options.device))
    bases = {"float32, now": "float32, slice and pad", "bf16, now": "bf16, slice and pad"}
    rows = [TimingRow(name, timing, timings.get(bases.get(name, ""))) for name, timing in timings.items()]
    rows.append(TimingRow("bf16 against float32", timings["bf16, now"], timings["float32, now"]))
    report("ResNet-20, forward and backward", rows, options.device, options.json)


if __name__ == "__main__":
    main()
