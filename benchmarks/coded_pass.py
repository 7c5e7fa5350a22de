"""The cost of a coded pass in time and in FLOPs: ``python -m benchmarks.coded_pass``.

Times critic steps (generator steps for the generator's blocks) with and without coding in turns, and counts their
FLOPs. *Over ideal* is the time ratio coded / plain divided by the FLOP ratio coded / plain. At 1, coding costs as much
as its arithmetic. On CUDA also the peak memory. (On a CPU only that of the whole process could be measured.)
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import torch

from benchmarks.timing import Row, clock_for, measure, parser, report, synchronised, width_of
from cs_gan import CodedSmoothing
from cs_gan.gan import critic_step, generator_step
from cs_gan.training.dry_run import counting
from models import build_gan

Step = Callable[[int], object]


class Steps:
    """The steps of one network pair on fixed images. With a learning rate of 0 the weights stay the same."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.generator, self.critic = build_gan(options.network, **width_of(options.width))
        for network in (self.generator, self.critic):
            network.to(options.device).to(memory_format=torch.channels_last)
        self.images = torch.randn(options.batch, *self.critic.image_shape, device=options.device)
        self.images = self.images.to(memory_format=torch.channels_last)
        self.latents = torch.randn(options.batch, self.generator.latent_dim, device=options.device)
        self.alpha = torch.rand(options.batch, device=options.device)

    def step(self, of: str, blocks: list[str] | None, ratio: float = 1.0, every: int = 1) -> Step:
        """A step of the ``critic`` or ``generator`` with these blocks coded, as a function of its number."""
        network = deepcopy(getattr(self, of))
        coded = None if blocks is None else CodedSmoothing(network, blocks, ratio, weight=0.1, every=every)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.0, betas=(0.0, 0.9))

        def run(step: int) -> None:
            if coded:
                coded.set_step(step, 10**6)
            if of == "critic":
                critic_step(network, optimizer, self.images, self.images.flip(0), self.alpha, coded=coded)
            else:
                generator_step(network, self.critic, optimizer, self.latents, coded=coded)

        return run


def _repeated(step: Step, count: int) -> None:
    for number in range(count):
        step(number)


def cases(steps: Steps, all_of: list[int]) -> dict[str, tuple[str, Step, int]]:
    """Name -> (name of the plain step to compare with, the step, number of steps in a round)."""
    count = len(steps.critic.blocks)
    places = {"last block": [f"blocks.{count - 1}"], "inner block": [f"blocks.{count // 2}"], "whole critic": [""]}
    found = {"critic, plain": ("critic, plain", steps.step("critic", None), 1)}
    for (name, blocks), ratio in itertools.product(places.items(), (1.0, 1.5)):
        found[f"critic, {name}, N = {ratio} K"] = ("critic, plain", steps.step("critic", blocks, ratio), 1)
    for every in all_of:
        name = f"critic, whole critic, N = 1.5 K, every {every}"
        found[name] = ("critic, plain", steps.step("critic", [""], 1.5, every), every)
    found["generator, plain"] = ("generator, plain", steps.step("generator", None), 1)
    for ratio in (1.0, 1.5):
        last = [f"blocks.{len(steps.generator.blocks) - 1}"]
        step = steps.step("generator", last, ratio)
        found[f"generator, last block, N = {ratio} K"] = ("generator, plain", step, 1)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    words = parser(__doc__, "python -m benchmarks.coded_pass")
    words.add_argument("--network", default="paper32", help="a name for build_gan")
    words.add_argument("--batch", type=int, default=64)
    words.add_argument("--width", type=int, help="of the networks (default: their own)")
    words.add_argument("--every", type=int, nargs="*", default=[4, 16], help="also observe only every m-th step")
    options = words.parse_args(arguments)
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
        variants[name] = synchronised(partial(_repeated, step, every), options.device)
    timings = measure(variants, options.repeats, clock_for(options.device))
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
