"""What a coded pass costs, against what its FLOPs would: ``python -m benchmarks.coded_pass``.

A critic step (a generator step for the generator's blocks) plain and coded, timed in turns, and both counted. *Over
ideal* is (coded / plain by time) / (coded / plain by FLOPs): 1 means that coding costs what its arithmetic does. On
CUDA the peak memory is told too; on a CPU it belongs to the whole process, so there it isn't.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn

from benchmarks.timing import Row, measure, report, synchronised
from cs_gan import CodedSmoothing
from cs_gan.gan import critic_step, generator_step
from cs_gan.training.dry_run import counting
from models import build_gan

Step = Callable[[int], object]


class Steps:
    """The steps of one network pair on fixed images; a learning rate of 0 leaves every round the same weights."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        width = {"width": options.width} if options.width else {}
        pair = build_gan(options.network, **width)
        self.generator, self.critic = (net.to(options.device, memory_format=torch.channels_last) for net in pair)
        self.images = torch.randn(options.batch, *self.critic.image_shape, device=options.device)
        self.images = self.images.to(memory_format=torch.channels_last)
        self.latents = torch.randn(options.batch, self.generator.latent_dim, device=options.device)
        self.alpha = torch.rand(options.batch, device=options.device)

    def critic_step(self, blocks: list[str] | None, ratio: float, every: int) -> Step:
        """One critic step, of the step's number."""
        critic, coded = self._coded(self.critic, blocks, ratio, every)
        optimizer = torch.optim.Adam(critic.parameters(), lr=0.0, betas=(0.0, 0.9))

        def run(step: int) -> None:
            if coded:
                coded.set_step(step, 10**6)
            critic_step(critic, optimizer, self.images, self.images.flip(0), self.alpha, coded=coded)

        return run

    def generator_step(self, blocks: list[str] | None, ratio: float, every: int) -> Step:
        """One generator step, of the step's number."""
        generator, coded = self._coded(self.generator, blocks, ratio, every)
        optimizer = torch.optim.Adam(generator.parameters(), lr=0.0, betas=(0.0, 0.9))

        def run(step: int) -> None:
            if coded:
                coded.set_step(step, 10**6)
            generator_step(generator, self.critic, optimizer, self.latents, coded=coded)

        return run

    @staticmethod
    def _coded(
        network: nn.Module, blocks: list[str] | None, ratio: float, every: int
    ) -> tuple[nn.Module, CodedSmoothing | None]:
        twin = deepcopy(network)
        return twin, None if blocks is None else CodedSmoothing(twin, blocks, ratio, weight=0.1, every=every)


def cases(steps: Steps, all_of: list[int]) -> dict[str, tuple[str, Step, int]]:
    """Name -> (the plain step it is a multiple of, the step, how many make a round)."""
    count = len(steps.critic.blocks)
    places = {"last block": [f"blocks.{count - 1}"], "inner block": [f"blocks.{count // 2}"], "whole critic": [""]}
    found = {"critic, plain": ("critic, plain", steps.critic_step(None, 1.0, 1), 1)}
    for (name, blocks), ratio in itertools.product(places.items(), (1.0, 1.5)):
        found[f"critic, {name}, N = {ratio} K"] = ("critic, plain", steps.critic_step(blocks, ratio, 1), 1)
    for every in all_of:
        name = f"critic, whole critic, N = 1.5 K, every {every}"
        found[name] = ("critic, plain", steps.critic_step([""], 1.5, every), every)
    found["generator, plain"] = ("generator, plain", steps.generator_step(None, 1.0, 1), 1)
    for ratio in (1.0, 1.5):
        blocks = [f"blocks.{len(steps.generator.blocks) - 1}"]
        found[f"generator, last block, N = {ratio} K"] = ("generator, plain", steps.generator_step(blocks, ratio, 1), 1)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coded_pass", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--network", default="paper32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, help="of the networks; their own by default")
    parser.add_argument("--every", type=int, nargs="*", default=[4, 16])
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--toy", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.toy:
        options.network, options.batch, options.width, options.every, options.repeats = "dcgan16", 4, 4, [2], 1
    steps = Steps(options)
    flops, memory, variants = {}, {}, {}
    found = cases(steps, options.every)
    for name, (_, step, every) in found.items():
        if options.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with counting() as counter:
            for i in range(every):
                step(i)
        flops[name] = counter.get_total_flops() / every
        if options.device == "cuda":
            memory[name] = torch.cuda.max_memory_allocated() / 2**20
        variants[name] = synchronised(lambda step=step, every=every: [step(i) for i in range(every)], options.device)
    clock = time.process_time if torch.get_num_threads() == 1 and options.device == "cpu" else time.perf_counter
    timings = measure(variants, options.repeats, clock)
    rows = [Row(name, timings[name], timings[base] if base != name else None) for name, (base, *_) in found.items()]
    over = {}
    for name, (base, _, every) in found.items():
        if name != base:
            by_time = timings[name].relative_to(timings[base]).median / every
            over[name] = round(by_time / (flops[name] / flops[base]), 3)
    figures = {"over_ideal": over, "flops_ratio": {k: flops[k] / flops[found[k][0]] for k in over}}
    title = f"{options.network}, batch {options.batch}; `every m` is m steps together"
    peaks = {"peak_MiB": {name: round(value) for name, value in memory.items()}} if memory else {}
    report(title, rows, options.device, options.json, **figures, **peaks)


if __name__ == "__main__":
    main()
