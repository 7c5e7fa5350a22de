"""The cost of coding, as ratios within one run: ``python benchmarks/coding.py``.

On one CPU thread the times are CPU time, which other processes hardly affect; otherwise wall time. With paper32 and
batch 64 a round takes about half a minute on one core. Codes for the batch sizes ``--sizes`` are built and multiplied,
dense and in blocks. The largest is compared with a training step of a ResNet-18.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from contextlib import ExitStack
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from scipy.interpolate import CubicSpline
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))  # models/ and benchmarks/ are not installed

from benchmarks.large_batches import build_rows, crossover_rows, share_rows, torch_spline
from benchmarks.large_batches import coding_of as coding
from benchmarks.task_steps import task_step
from benchmarks.timing import (
    Clock,
    Row,
    Variant,
    clock_for,
    measure,
    report,
    rows_of,
    synchronised,
    width_of,
)
from benchmarks.wgan_step import N_CRITIC
from cs_gan import CodedSmoothing, SplineCode
from cs_gan.gan import critic_step
from models import Critic, build_gan
from tasks.gan.recipe import GanConfig
from tasks.gan.task import GanTask

RATIOS = (1.0, 1.5)
PLAIN, AGAIN = "critic step, plain", "critic step, plain again (noise)"


# -- the parts that are timed ----------------------------------------------------------------------


def block_tensors(critic: nn.Module, block: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Input and output of a block for these images, detached."""
    seen: list[Tensor] = []
    hook = critic.get_submodule(block).register_forward_hook(lambda _, args, output: seen.extend((args[0], output)))
    with torch.no_grad(), hook:
        critic(images)
    return seen[0], seen[1]


def step(critic: nn.Module, images: Tensor, block: str | None, ratio: float = 1.0) -> Variant:
    """A critic step on a copy of ``critic``, with one block coded on real images, or none.

    With a learning rate of 0 Adam does all its work, but the weights stay the same in every round.
    """
    critic = deepcopy(critic)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.0, betas=(0.0, 0.9))
    coded = None if block is None else CodedSmoothing(critic, [block], ratio, weight=0.1)
    alpha = torch.rand(len(images), device=images.device)
    run = partial(critic_step, critic, optimizer, images, images.flip(0), alpha, coded=coded)
    return synchronised(run, images.device.type)


def fitting(code: SplineCode, x: Tensor, y: Tensor) -> Variant:  # (K, *F), (N, *G)
    """The same without matrices: fit scipy's splines to the batch and to the coded outputs, and evaluate them."""
    alpha, beta = code.alpha[::-1], code.beta[::-1]  # scipy wants increasing nodes
    data, outputs = (tensor.flatten(1).flip(0).cpu().numpy() for tensor in (x, y))

    def run() -> None:
        CubicSpline(alpha, data, bc_type="natural")(beta)
        CubicSpline(beta, outputs, bc_type="natural")(alpha)

    return run


def refitting(code: SplineCode, x: Tensor, y: Tensor) -> Variant:  # (K, *F), (N, *G)
    """The same in torch, on the device of the batch."""
    alpha, beta = (torch.from_numpy(-nodes).to(x) for nodes in (code.alpha, code.beta))  # negated nodes increase
    encode, decode = torch_spline(alpha, beta), torch_spline(beta, alpha)
    data, outputs = x.flatten(1), y.flatten(1)
    return synchronised(lambda: (encode(data), decode(outputs)), x.device.type)


# -- the measurements ------------------------------------------------------------------------------


def step_rows(critic: nn.Module, block: str, images: Tensor, repeats: int, clock: Clock) -> list[Row]:
    """Encode + decode alone, a coded block, and the whole critic coded, compared with the plain step."""
    x, y = block_tensors(critic, block, images)
    variants: dict[str, Variant] = {PLAIN: step(critic, images, None)}
    for ratio in RATIOS:
        alone = coding(SplineCode(len(x), round(ratio * len(x))), x, y)
        variants[f"encode + decode alone, N = {ratio} K"] = synchronised(alone, images.device.type)
    variants[AGAIN] = step(critic, images, None)
    for name, ratio in itertools.product((block, ""), RATIOS):
        variants[f"critic step, {name or 'whole critic'} coded, N = {ratio} K"] = step(critic, images, name, ratio)
    return rows_of(measure(variants, repeats, clock))


def recipe_shares(options: argparse.Namespace, critic: nn.Module, images: Tensor, clock: Clock) -> dict[str, float]:
    """The share of encoding and decoding in the critic in the time of a whole coded step of train_gan.py."""
    x, y = block_tensors(critic, options.block, images)
    given = [f"--model.name={options.network}", f"--coded.critic.blocks={options.block}"]
    given += [f"--model.width={options.width}"] if options.width else []
    given += [f"--data.image_size={images.shape[-1]}", f"--training.batch_size={len(images)}"]
    given += ["--metrics.extractor=none"]
    found = {}
    for ratio in RATIOS:
        with ExitStack() as stack:
            given += [f"--coded.ratio_start={ratio}", f"--coded.ratio_end={ratio}"]
            step = task_step(stack, GanTask, GanConfig, *given)
            alone = coding(SplineCode(len(x), round(ratio * len(x))), x, y)
            variants = {"step": step, "alone": alone}
            timings = measure({k: synchronised(v, images.device.type) for k, v in variants.items()}, 5, clock)
        share = N_CRITIC * timings["alone"].relative_to(timings["step"]).median
        found[f"encode + decode, N = {ratio} K, of a whole coded step of train_gan.py"] = share
    return found


def outside_rows(critic: nn.Module, block: str, images: Tensor, repeats: int, clock: Clock) -> list[Row]:
    """The forward of a critic with an attached CodedSmoothing, outside observe, compared with the plain critic.

    Raises:
        AssertionError: if any bit of the outputs differs, inside or outside observe.
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
    networks = (plain, plain, attached)
    calls = [synchronised(partial(network, images), images.device.type) for network in networks]
    variants = dict(zip(names, calls, strict=True))
    timings = measure(variants, repeats, clock)
    coded.detach()
    return rows_of(timings)


def fitting_rows(critic: nn.Module, block: str, images: Tensor, repeats: int, clock: Clock) -> list[Row]:
    """The matrices, compared with fitting splines in each step; forward only."""
    x, y = block_tensors(critic, block, images)
    code = SplineCode(len(x), round(1.5 * len(x)))
    coded_y = code.encode(y)
    variants = {
        "encode + decode by matrices, forward": synchronised(
            lambda: (code.encode(x), code.decode(coded_y)), images.device.type
        ),
        "the same by scipy's CubicSpline": fitting(code, x, coded_y),
        "the same by splines in torch": refitting(code, x, coded_y),
    }
    return rows_of(measure(variants, repeats, clock))


def flops(critic: nn.Module, block: str, images: Tensor, ratio: float) -> tuple[int, int]:
    """FLOPs of coding a block, forward and backward, and of the three forwards of the plain step (real, fake, between).

    The step also has backward passes and Adam, so the second number is a lower bound.
    """
    with FlopCounterMode(display=False) as forward:
        x, y = block_tensors(critic, block, images)
    run = coding(SplineCode(len(x), round(ratio * len(x))), x, y)
    with FlopCounterMode(display=False) as counted:
        run()
    return counted.get_total_flops(), 3 * forward.get_total_flops()


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--network", default="paper32", help="a name for build_gan")
    parser.add_argument("--block", default="blocks.2", help="the coded block of the critic")
    parser.add_argument("--width", type=int, help="of the critic; default: its own")
    parser.add_argument("--batch", type=int, default=64, help="K")
    parser.add_argument("--repeats", type=int, default=7, help="rounds of critic steps; 4 times as many for the rest")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 4096], help="batch sizes K of large codes"
    )
    parser.add_argument("--features", type=int, default=1024, help="with --sizes: features of a sample")
    parser.add_argument("--classifier", default="preact_resnet18", help="with --sizes: a name for build_classifier")
    parser.add_argument("--classifier-block", default="blocks.4", help="its coded block")
    parser.add_argument("--classifier-batch", type=int, default=32, help="batch size of its step")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = options.device
    critic: Critic = build_gan(options.network, **width_of(options.width))[1]
    critic.to(device).to(memory_format=torch.channels_last)  # as in train_gan.py
    images = torch.randn(options.batch, *critic.image_shape, device=device).to(memory_format=torch.channels_last)
    clock = clock_for(device)
    what, often = (critic, options.block, images), 4 * options.repeats  # all except the steps are fast
    rows = step_rows(*what, options.repeats, clock)
    rows += outside_rows(*what, often, clock) + fitting_rows(*what, often, clock)
    large, figures = large_rows(options, clock)
    figures |= recipe_shares(options, critic, images, clock)
    coded, forward = flops(critic, options.block, images, max(RATIOS))
    share = f"FLOPs of encode + decode at N = {max(RATIOS)} K, of the step's forwards alone"
    title = f"{options.network}, batch {options.batch}, {clock.__name__}"
    report(title, rows + large, device, options.json, **{share: f"{coded / forward:.2%}"} | figures)


def large_rows(options: argparse.Namespace, clock: Clock) -> tuple[list[Row], dict[str, float]]:
    """Codes for large batches: built, multiplied dense and in blocks, and compared with a classifier's step."""
    sizes, repeats, device = options.sizes, options.repeats, options.device
    rows = build_rows(sizes, repeats, clock) + crossover_rows(sizes, options.features, repeats, clock, device)
    more, time_share, flop_share = share_rows(
        max(sizes), options.classifier_batch, options.classifier_block, 16, repeats, clock, device, options.classifier
    )
    name = f"encode + decode of {max(sizes)} samples at {options.classifier_block}, of a {options.classifier} step"
    return rows + more, {f"{name}, by time": time_share, f"{name}, by FLOPs": flop_share}


if __name__ == "__main__":
    main()
