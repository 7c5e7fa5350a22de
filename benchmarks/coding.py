"""What coding costs on CPU, as ratios within one run: ``python benchmarks/coding.py``.

On one thread times are CPU time, so that other processes on the machine count for little; on more, wall time.
paper32 at batch 64 takes about half a minute a repeat on one core.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import time
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from scipy.interpolate import CubicSpline
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))  # models/ and benchmarks/ are not installed

from benchmarks.timing import Clock, Row, Variant, measure, table
from cs_gan import CodedSmoothing, SplineCode
from cs_gan.gan import critic_step
from models import Critic, build_gan

RATIOS = (1.0, 1.5)
PLAIN, AGAIN = "critic step, plain", "critic step, plain again (noise)"


# -- the parts that are timed ----------------------------------------------------------------------


def block_tensors(critic: nn.Module, block: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Input and output of a block at these images, detached."""
    seen: list[Tensor] = []
    hook = critic.get_submodule(block).register_forward_hook(lambda _, args, output: seen.extend((args[0], output)))
    with torch.no_grad(), hook:
        critic(images)
    return seen[0], seen[1]


def coding(code: SplineCode, x: Tensor, y: Tensor) -> Variant:  # (K, *F), (K, *G)
    """Encode x and decode outputs like y, forward and backward, as a coded block does beside its own work."""
    x = x.detach().requires_grad_()
    outputs = code.encode(y).detach().requires_grad_()  # (N, *G)
    grads = [code.encode(x).detach(), y]

    def run() -> None:
        torch.autograd.grad([code.encode(x), code.decode(outputs)], [x, outputs], grads)

    return run


def step(critic: nn.Module, images: Tensor, block: str | None, ratio: float = 1.0) -> Variant:
    """A critic step on a copy of ``critic``, with one block coded on real images or none.

    A learning rate of 0 does Adam's whole work and leaves every round the same weights.
    """
    critic = deepcopy(critic)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.0, betas=(0.0, 0.9))
    coded = None if block is None else CodedSmoothing(critic, [block], ratio, weight=0.1)
    return partial(critic_step, critic, optimizer, images, images.flip(0), torch.rand(len(images)), coded=coded)


def fitting(code: SplineCode, x: Tensor, y: Tensor) -> Variant:  # (K, *F), (N, *G)
    """What the matrices replace: fit scipy's splines to the batch and to the coded outputs, and evaluate them."""
    alpha, beta = code.alpha[::-1], code.beta[::-1]  # scipy wants increasing nodes
    data, outputs = (tensor.flatten(1).flip(0).numpy() for tensor in (x, y))

    def run() -> None:
        CubicSpline(alpha, data, bc_type="natural")(beta)
        CubicSpline(beta, outputs, bc_type="natural")(alpha)

    return run


# -- the five measurements -------------------------------------------------------------------------


def step_rows(critic: nn.Module, block: str, images: Tensor, repeats: int, clock: Clock) -> list[Row]:
    """1 and 2: encode + decode alone, a coded block and the whole critic coded, against the plain step."""
    x, y = block_tensors(critic, block, images)
    variants: dict[str, Variant] = {PLAIN: step(critic, images, None)}
    for ratio in RATIOS:
        variants[f"encode + decode alone, N = {ratio} K"] = coding(SplineCode(len(x), round(ratio * len(x))), x, y)
    variants[AGAIN] = step(critic, images, None)
    for name, ratio in itertools.product((block, ""), RATIOS):
        variants[f"critic step, {name or 'whole critic'} coded, N = {ratio} K"] = step(critic, images, name, ratio)
    timings = measure(variants, repeats, clock)
    return [Row(name, timing, None if name == PLAIN else timings[PLAIN]) for name, timing in timings.items()]


def outside_rows(critic: nn.Module, block: str, images: Tensor, repeats: int, clock: Clock) -> list[Row]:
    """3: forward with a CodedSmoothing attached that has observed before, against the same critic without.

    Raises:
        AssertionError: if outputs differ in any bit, inside observe or outside.
    """
    attached, plain = deepcopy(critic), deepcopy(critic)
    expected = attached(images)
    coded = CodedSmoothing(attached, [block])
    with coded.observe():
        inside = attached(images)
    for output in (inside, attached(images), plain(images)):
        if not torch.equal(output, expected):
            raise AssertionError("an attached CodedSmoothing changed what the critic computes")
    names = "critic forward, plain", "critic forward, plain again (noise)", "critic forward, attached"
    variants = dict(
        zip(names, (partial(plain, images), partial(plain, images), partial(attached, images)), strict=True)
    )
    timings = measure(variants, repeats, clock)
    coded.detach()
    return [Row(name, timings[name], timings[names[0]] if name != names[0] else None) for name in names]


def fitting_rows(critic: nn.Module, block: str, images: Tensor, repeats: int, clock: Clock) -> list[Row]:
    """4: the matrices against fitting splines at each step, forward only."""
    x, y = block_tensors(critic, block, images)
    code = SplineCode(len(x), round(1.5 * len(x)))
    coded_y = code.encode(y)
    names = "encode + decode by matrices, forward", "the same by scipy's CubicSpline"
    variants = {names[0]: lambda: (code.encode(x), code.decode(coded_y)), names[1]: fitting(code, x, coded_y)}
    timings = measure(variants, repeats, clock)
    return [Row(names[0], timings[names[0]]), Row(names[1], timings[names[1]], timings[names[0]])]


def construction_rows(K: int, N: int, repeats: int, clock: Clock) -> list[Row]:
    """5: a SplineCode built, and taken from the cache."""
    # A seed never used before is a new code to the cache, and these nodes do without it.
    seeds = itertools.count(time.time_ns())
    names = f"SplineCode({K}, {N}) built", f"SplineCode({K}, {N}) from the cache"
    variants: dict[str, Variant] = {
        names[0]: lambda: SplineCode(K, N, seed=next(seeds)),
        names[1]: partial(SplineCode, K, N),
    }
    return [Row(name, timing) for name, timing in measure(variants, repeats, clock).items()]


def flops(critic: nn.Module, block: str, images: Tensor, ratio: float) -> tuple[int, int]:
    """Of coding a block, forward and backward, and of the plain step's three forwards: real, fake, between.

    The backward passes and Adam come on top of the three, so they are a lower bound of the step.
    """
    with FlopCounterMode(display=False) as forward:
        x, y = block_tensors(critic, block, images)
    run = coding(SplineCode(len(x), round(ratio * len(x))), x, y)
    with FlopCounterMode(display=False) as counted:
        run()
    return counted.get_total_flops(), 3 * forward.get_total_flops()


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write the CSV if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--network", default="paper32", help="a name build_gan knows")
    parser.add_argument("--block", default="blocks.2", help="of the critic, the one that is coded")
    parser.add_argument("--width", type=int, help="of the critic; the network's own by default")
    parser.add_argument("--batch", type=int, default=64, help="K")
    parser.add_argument("--repeats", type=int, default=7, help="rounds of critic steps; the rest has 4 times as many")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--csv", type=Path, help="where to write the table")
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    critic: Critic = build_gan(options.network, **({"width": options.width} if options.width else {}))[1]
    critic.to(memory_format=torch.channels_last)  # as train_gan.py has it
    images = torch.randn(options.batch, *critic.image_shape).to(memory_format=torch.channels_last)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    what, often = (critic, options.block, images), 4 * options.repeats  # all but the steps are cheap
    rows = step_rows(*what, options.repeats, clock)
    rows += outside_rows(*what, often, clock) + fitting_rows(*what, often, clock)
    rows += construction_rows(64, 96, often, clock)

    lines = table(rows)
    wide = max(len(line[0]) for line in lines)
    print(f"{options.network}, batch {options.batch}, threads {options.threads}, {clock.__name__}; medians, quartiles")
    for name, *cells in lines:
        print(name.ljust(wide), *(cell.rjust(9) for cell in cells))
    coded, forward = flops(critic, options.block, images, max(RATIOS))
    print(f"FLOPs of encode + decode at N = {max(RATIOS)} K: {coded / forward:.2%} of the step's forwards alone")
    if options.csv:
        with options.csv.open("w", newline="") as file:
            csv.writer(file).writerows(lines)


if __name__ == "__main__":
    main()
