"""Shares of the gradient at one weight, block by block, and whether the proposed weight gives its share.

``python -m benchmarks.strength``: a DCGAN critic of its own, torch-mimicry's critic and a timm classifier, where these
are installed, before training and after a few steps on smooth random images. Nothing was tuned for them.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.mimicry import mimicry
from cs_gan import CodedSmoothing
from cs_gan.core.discrepancy import DISCREPANCIES
from cs_gan.gan import critic_step, gradient_penalty

WEIGHT, SHARE = 0.1, 0.1


class Dcgan(nn.Module):
    """A critic as one writes it: three strided convolutions."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 32), (32, 64), (64, 128))
        self.stages = nn.ModuleList(nn.Sequential(nn.Conv2d(*size, 4, 2, 1), nn.LeakyReLU(0.2)) for size in sizes)
        self.head = nn.Linear(128 * 16, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> (B,)."""
        for stage in self.stages:
            images = stage(images)
        scores: Tensor = self.head(images.flatten(1)).flatten()
        return scores


def smooth_images(count: int) -> Tensor:
    """(B, 3, 32, 32) in [-1, 1]."""
    return F.interpolate(torch.randn(count, 3, 5, 5), size=32, mode="bicubic").clamp(-1, 1)


def critics(width: int) -> Iterator[tuple[str, nn.Module, list[str]]]:
    """Name, critic and its inner blocks."""
    yield "DCGAN", Dcgan(), ["stages.0", "stages.1", "stages.2"]
    if pair := mimicry(width, "cpu"):
        critic = nn.Sequential(pair[1], nn.Flatten(0))
        yield "torch-mimicry", critic, [f"0.block{number}" for number in (1, 2, 3, 4)]


Loss = Callable[[nn.Module, Tensor], Tensor]


def row(name: str, network: nn.Module, blocks: list[str], images: Tensor, loss: Loss, kind: str) -> str:
    """A line of the table."""
    twin = copy.deepcopy(network)
    coded = CodedSmoothing(twin, blocks, 1.0, weight=WEIGHT, discrepancy=kind)
    report = coded.diagnose(lambda: twin(images), loss(twin, images))
    shares = [100 * (block.gradient_share or 0) for block in report.blocks.values()]
    weight = report.proposals()["all blocks"][SHARE]
    coded.detach()
    coded = CodedSmoothing(twin, blocks, 1.0, weight=weight, discrepancy=kind)
    task = loss(twin, images)
    with coded.observe():
        twin(images)
    logged = 100 * coded.share(coded.penalty(), task, twin.parameters()).item()
    listed = ", ".join(f"{share:.2g}" for share in shares)
    return f"| {name} | {kind} | {listed} | {max(shares) / min(shares):.1f} | {weight:.3g} | {logged:.1f} |"


def table(steps: int, batch: int, width: int) -> Iterator[str]:
    """All rows, as Markdown."""
    shares = f"share of each block at weight {WEIGHT} (%)"
    yield f"| network | discrepancy | {shares} | largest / smallest | weight for 10 % | measured (%) |"
    yield "|---|---|---|---|---|---|"
    for name, critic, blocks in critics(width):
        optimizer = torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.0, 0.9))
        for step in range(steps + 1):
            real, fake, alpha = smooth_images(batch), torch.randn(batch, 3, 32, 32).tanh(), torch.rand(batch)

            def loss(net: nn.Module, real: Tensor, fake: Tensor = fake, alpha: Tensor = alpha) -> Tensor:
                loss: Tensor = net(fake).mean() - net(real).mean() + 10 * gradient_penalty(net, real, fake, alpha)
                return loss

            if step in (0, steps):
                for kind in DISCREPANCIES:
                    yield row(f"{name}, step {step}", critic, blocks, real, loss, kind)
            critic_step(critic, optimizer, real, fake, alpha)
    try:
        import timm
    except ImportError:
        return
    labels = torch.randint(10, (batch,))
    network, images = timm.create_model("resnet18", num_classes=10), smooth_images(batch)
    for kind in DISCREPANCIES:
        blocks = [f"layer{n}" for n in (1, 2, 3, 4)]
        yield row("timm resnet18, step 0", network, blocks, images, partial(_cross_entropy, labels), kind)


def _cross_entropy(labels: Tensor, network: nn.Module, images: Tensor) -> Tensor:
    return F.cross_entropy(network(images), labels)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--steps", type=int, default=60, help="training steps before the second measurement")
    words.add_argument("--batch", type=int, default=32)
    words.add_argument("--width", type=int, default=64, help="of torch-mimicry's critic")
    options = words.parse_args(arguments)
    torch.manual_seed(0)
    for line in table(options.steps, options.batch, options.width):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
