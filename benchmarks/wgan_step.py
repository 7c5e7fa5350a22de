"""Compare a WGAN-GP iteration, 5 critic steps and 1 generator step, with torch-mimicry.

torch-mimicry 0.1.16 runs its own ``train_step`` in the same process, on networks with the same architecture and
weights. Losses and gradients are compared first. Install it only for this benchmark::

    pip install --no-deps --target mimicry torch-mimicry==0.1.16
    python benchmarks/wgan_step.py --mimicry mimicry

``--device cuda`` also times whole steps of ``train_gan.py``, with and without CUDA graphs, coded and plain.
``--end-to-end 60`` runs ``train_gan.py`` itself for 60 seconds and reads its log.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # models/ and benchmarks/ are not installed

from benchmarks.mimicry import Quiet, mimicry, ours_like, require_equal  # noqa: E402
from benchmarks.task_steps import DATA, task_rows  # noqa: E402
from benchmarks.timing import TimingRow, Variant, clock_for, measure, parser, report, synchronised, width_of  # noqa: E402
from cs_gan.gan import critic_step, generator_step  # noqa: E402
from cs_gan.runs import read_lines  # noqa: E402
from cs_gan.training import parse_config  # noqa: E402
from models import build_gan  # noqa: E402
from tasks.gan.recipe import GanConfig  # noqa: E402
from tasks.gan.task import GanTask  # noqa: E402

N_CRITIC = 5
PEER, OURS = "torch-mimicry 0.1.16", "ours"


# -- the iteration of both -------------------------------------------------------------------------


def peer_iteration(theirs: tuple[Any, Any], real: Tensor) -> dict[str, Variant]:
    """torch-mimicry's critic step, generator step and iteration."""
    generator, critic = theirs
    optimizers = [torch.optim.Adam(net.parameters(), 0.0, (0.0, 0.9)) for net in theirs]
    shared = {"real_batch": (real, None), "log_data": Quiet(), "device": real.device}
    critic_update = partial(critic.train_step, netG=generator, optD=optimizers[1], **shared)
    generator_update = partial(generator.train_step, netD=critic, optG=optimizers[0], **shared)
    return parts(critic_update, generator_update)


def our_iteration(ours: tuple[nn.Module, nn.Module], real: Tensor) -> dict[str, Variant]:
    """Our own. With a learning rate of 0 Adam does all its work, but the weights stay the same in every round."""
    generator, critic = ours
    fused = {"fused": True} if real.is_cuda else {}
    optimizers = [torch.optim.Adam(net.parameters(), 0.0, (0.0, 0.9), **fused) for net in ours]
    real = real.to(memory_format=torch.channels_last)

    def critic_update() -> None:
        with torch.no_grad():
            fake = generator(torch.randn(len(real), 128, device=real.device))
        critic_step(critic, optimizers[1], real, fake, torch.rand(len(real), device=real.device))

    def generator_update() -> None:
        generator_step(generator, critic, optimizers[0], torch.randn(len(real), 128, device=real.device))

    return parts(critic_update, generator_update)


def parts(critic: Variant, generator: Variant) -> dict[str, Variant]:
    """The iteration and its parts, by name."""

    def iteration() -> None:
        for _ in range(N_CRITIC):
            critic()
        generator()

    return {"iteration": iteration, "critic step": critic, "generator step": generator}


def against_mimicry(options: argparse.Namespace) -> tuple[list[TimingRow], dict[str, Any]]:
    """Time both iterations in turns."""
    theirs = mimicry(options.width, options.device)
    if theirs is None:
        print("torch-mimicry isn't installed, so there is no peer (see --help for the command).")
        generator, critic = build_gan("mimicry32", **width_of(options.width))
        ours: tuple[nn.Module, nn.Module] = generator.to(options.device), critic.to(options.device)
        difference = None
    else:
        ours = ours_like(theirs, options.width, options.device)
        difference = require_equal(theirs, ours, min(options.batch, 16), options.device)
    real = torch.randn(options.batch, 3, 32, 32, device=options.device)
    variants = {f"{OURS}, {name}": run for name, run in our_iteration(ours, real).items()}
    if theirs:
        variants |= {f"{PEER}, {name}": run for name, run in peer_iteration(theirs, real).items()}
    run = {name: synchronised(variant, options.device) for name, variant in variants.items()}
    timings = measure(run, options.repeats, clock_for(options.device))
    rows = [
        TimingRow(name, timing, timings.get(name.replace(OURS, PEER)) if name.startswith(OURS) else None)
        for name, timing in timings.items()
    ]
    if theirs is None:
        return rows, {}
    ratio = timings[f"{OURS}, iteration"].relative_to(timings[f"{PEER}, iteration"]).median
    return rows, {"ratio_to_mimicry": ratio, "largest_difference": difference}


# -- whole steps of train_gan.py -------------------------------------------------------------------

NETWORKS = {
    "paper32": ["--model.name=paper32", "--training.generator_batch_size=128", "--training.decay=linear"],
    "mimicry32": ["--model.name=mimicry32", "--training.decay=linear"],
    "dcgan32": ["--model.name=dcgan32", "--model.width=64"],
    "paper64": ["--model.name=paper64", "--data.image_size=64"],
}
BF16 = ["--training.mixed_precision=bf16"]
MODES = {
    "plain": [],
    "blocks.2 coded at 1.5 K": ["--coded.critic.blocks=blocks.2", "--coded.ratio_start=1.5"],
    "whole critic coded at 1.5 K": ['--coded.critic.blocks=[""]', "--coded.ratio_start=1.5"],
}
CUDA_MODES = {
    "eager": ["--training.cuda_graph=off"],
    "eager, bf16": ["--training.cuda_graph=off", *BF16],
    "graph": [],
    "graph, true float32": ["--training.tf32=false"],
    "graph, bf16": BF16,
    "graph, bf16, blocks.2 coded at 1.5 K": [*BF16, "--coded.critic.blocks=blocks.2", "--coded.ratio_start=1.5"],
    "graph, bf16, whole critic coded at 1.5 K": [*BF16, '--coded.critic.blocks=[""]', "--coded.ratio_start=1.5"],
}


def network_rows(network: str, options: argparse.Namespace) -> list[TimingRow]:
    """Time all modes of one network in turns, compared with the first."""
    modes = CUDA_MODES if options.device == "cuda" else MODES
    shared = [*NETWORKS[network], "--metrics.extractor=none", f"--training.batch_size={options.batch}"]
    shared += [f"--model.width={options.width}"] if options.width else []
    if options.toy:
        shared += ["--training.generator_batch_size=4", "--training.n_critic=1", "--training.steps=4"]
    named = {
        f"{network}, {name}": [*shared, *mode]
        for name, mode in modes.items()
        if network == "paper32" or "coded" not in name
    }
    return task_rows(GanTask, GanConfig, named, options)


# -- train_gan.py itself ---------------------------------------------------------------------------


def end_to_end(recipe: str, seconds: float, *arguments: str) -> dict[str, float]:
    """Generator steps and real images per second in the second half of a run, from its log.

    The first half includes the start of the process, the first samples and the warm-up of the first graphs. The images
    are digits unless ``arguments`` name a data set, because the speed doesn't depend on their content.
    """
    with tempfile.TemporaryDirectory() as folder:
        if not any(word.startswith("--data.") for word in arguments):
            arguments = (*arguments, *DATA)
        command = [sys.executable, str(ROOT / "train_gan.py"), f"--config={ROOT / 'configs/gan' / recipe}.yaml"]
        command += [f"--output_dir={folder}/run", "--metrics.extractor=none", "--tracking.trackers=none"]
        command += [f"--training.max_minutes={seconds / 60}", *arguments]
        finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if finished.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {finished.returncode}: {finished.stderr[-2000:]}")
        log = read_lines(Path(folder) / "run" / "log.jsonl")
        config = parse_config(GanConfig, [f"--config={folder}/run/config.yaml"])
    speeds = [row["images_per_second"] for row in log if row["images_per_second"]]  # 0 until a step after the first
    if not speeds:
        raise RuntimeError(f"{recipe} logged no speed within {seconds} s: give --end-to-end more seconds")
    half = speeds[len(speeds) // 2 :]
    images = sum(half) / len(half)
    return {
        "images_per_second": images,
        "steps_per_second": images / config.training.batch_size / config.training.n_critic,
    }


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    words = parser(__doc__)
    words.add_argument("--mimicry", type=Path, help="folder that contains torch_mimicry, if it isn't installed")
    words.add_argument("--batch", type=int, default=64, help="images in a critic step (64)")
    words.add_argument("--width", type=int, help="of all networks (default: their own)")
    words.add_argument("--threads", type=int, help="torch threads on the CPU (default: all)")
    words.add_argument(
        "--networks", help="time whole steps of these networks, separated by commas (default: all on cuda, none on cpu)"
    )
    words.add_argument("--end-to-end", type=float, default=0.0, help="seconds of train_gan.py for each recipe")
    words.add_argument("--recipes", default="cifar10_paper,cifar10_paper_coded", help="for --end-to-end")
    words.add_argument("more", nargs="*", help="after --: further arguments for train_gan.py")
    options = words.parse_args(arguments)
    if options.toy:
        options.width, options.batch, options.repeats = 8, 4, 1
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.mimicry:
        sys.path.insert(0, str(options.mimicry))

    figures: dict[str, Any] = {}
    if options.end_to_end:
        for recipe in options.recipes.split(","):
            figures[recipe] = end_to_end(recipe, options.end_to_end, *options.more)
        report("train_gan.py from end to end", [], options.device, options.json, **figures)
        return
    rows, figures = against_mimicry(options)
    chosen = list(NETWORKS) if options.networks is None and options.device == "cuda" else []
    for network in options.networks.split(",") if options.networks else chosen:
        rows += network_rows(network, options)
    report("5 critic steps and a generator step", rows, options.device, options.json, **figures)


if __name__ == "__main__":
    main()
