"""A WGAN-GP iteration, 5 critic steps and a generator step, against torch-mimicry: ``python benchmarks/wgan_step.py``.

The peer is torch-mimicry 0.1.16 running its own ``train_step``, in the same process, on networks of the same
architecture and weights; losses and gradients are compared first. Install it for this benchmark alone::

    pip install --no-deps --target mimicry torch-mimicry==0.1.16
    python benchmarks/wgan_step.py --mimicry mimicry

``--device cuda`` also times whole steps of ``train_gan.py``'s task, with CUDA graphs and without, coded and plain.
``--end-to-end 60`` runs ``train_gan.py`` itself for so many seconds and reads its log.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # models/ and benchmarks/ are not installed

import train_gan  # noqa: E402
from benchmarks.mimicry import Quiet, mimicry, ours_like, require_equal  # noqa: E402
from benchmarks.timing import Row, Timing, Variant, measure, report, synchronised  # noqa: E402
from cs_gan.gan import critic_step, generator_step  # noqa: E402
from cs_gan.training import GanConfig, Session, parse_config, read_lines  # noqa: E402
from models import build_gan  # noqa: E402

N_CRITIC = 5
PEER, OURS = "torch-mimicry 0.1.16", "ours"


# -- the iteration of both -------------------------------------------------------------------------


def peer_iteration(theirs: tuple[Any, Any], real: Tensor) -> dict[str, Variant]:
    """Its critic step, its generator step, and five and one of them."""
    generator, critic = theirs
    optimizers = [torch.optim.Adam(net.parameters(), 0.0, (0.0, 0.9)) for net in theirs]
    shared = {"real_batch": (real, None), "log_data": Quiet(), "device": real.device}
    one = partial(critic.train_step, netG=generator, optD=optimizers[1], **shared)
    two = partial(generator.train_step, netD=critic, optG=optimizers[0], **shared)
    return parts(one, two)


def our_iteration(ours: tuple[nn.Module, nn.Module], real: Tensor) -> dict[str, Variant]:
    """The same of ours. A learning rate of 0 does Adam's whole work and leaves every round the same weights."""
    generator, critic = ours
    fused = {"fused": True} if real.is_cuda else {}
    optimizers = [torch.optim.Adam(net.parameters(), 0.0, (0.0, 0.9), **fused) for net in ours]
    real = real.to(memory_format=torch.channels_last)

    def one() -> None:
        with torch.no_grad():
            fake = generator(torch.randn(len(real), 128, device=real.device))
        critic_step(critic, optimizers[1], real, fake, torch.rand(len(real), device=real.device))

    def two() -> None:
        generator_step(generator, critic, optimizers[0], torch.randn(len(real), 128, device=real.device))

    return parts(one, two)


def parts(critic: Variant, generator: Variant) -> dict[str, Variant]:
    """By name; the iteration is what counts."""

    def iteration() -> None:
        for _ in range(N_CRITIC):
            critic()
        generator()

    return {"iteration": iteration, "critic step": critic, "generator step": generator}


def against_mimicry(options: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """Both iterations, taking turns."""
    theirs = mimicry(options.width, options.device)
    if theirs is None:
        print("torch-mimicry isn't installed, so there is no peer (see --help for the command).")
        ours = tuple(net.to(options.device) for net in build_gan("mimicry32", **width_of(options)))
        difference = None
    else:
        ours = ours_like(theirs, options.width, options.device)
        difference = require_equal(theirs, ours, min(options.batch, 16), options.device)
    real = torch.randn(options.batch, 3, 32, 32, device=options.device)
    variants = {f"{OURS}, {name}": run for name, run in our_iteration(ours, real).items()}
    if theirs:
        variants |= {f"{PEER}, {name}": run for name, run in peer_iteration(theirs, real).items()}
    run = {name: synchronised(variant, options.device) for name, variant in variants.items()}
    # On one thread processor time leaves out what other processes take.
    alone = options.device == "cpu" and torch.get_num_threads() == 1
    timings = measure(run, options.repeats, time.process_time if alone else time.perf_counter)
    rows = [Row(name, timing, base_of(name, timings)) for name, timing in timings.items()]
    if theirs is None:
        return rows, {}
    ratio = timings[f"{OURS}, iteration"].relative_to(timings[f"{PEER}, iteration"]).median
    return rows, {"ratio_to_mimicry": ratio, "largest_difference": difference}


def base_of(name: str, timings: dict[str, Timing]) -> Timing | None:
    """What ours is a multiple of."""
    return timings.get(name.replace(OURS, PEER)) if name.startswith(OURS) else None


def width_of(options: argparse.Namespace) -> dict[str, int]:
    """As an override of build_gan."""
    return {"width": options.width} if options.width else {}


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


def task_step(stack: ExitStack, *arguments: str) -> Variant:
    """A step of a real task, with everything but the log: data, draws, both networks, averages."""
    base = ["--data.name=digits", "--data.channels=3", "--data.image_size=32", "--tracking.trackers=none"]
    base += ["--metrics.extractor=none", f"--output_dir={stack.enter_context(tempfile.TemporaryDirectory())}"]
    config = parse_config(GanConfig, [*base, *arguments])
    task = train_gan.GanTask(config, Session(config, stack))
    stack.callback(task.close)
    return partial(task.step, 0)


def task_rows(network: str, options: argparse.Namespace) -> list[Row]:
    """Every mode of one network, taking turns, as multiples of the first."""
    modes = CUDA_MODES if options.device == "cuda" else MODES
    modes = {name: given for name, given in modes.items() if network == "paper32" or "coded" not in name}
    extra = [f"--model.width={options.width}"] if options.width else []
    extra += [f"--training.batch_size={options.batch}"]
    if options.toy:
        extra += ["--training.generator_batch_size=4", "--training.n_critic=1", "--training.steps=4"]
    with ExitStack() as stack:
        steps = {}
        for name, given in modes.items():
            step = task_step(stack, *NETWORKS[network], *given, *extra)
            for _ in range(1 if options.toy else 4):  # until it runs as a graph
                step()
            steps[f"{network}, {name}"] = synchronised(step, options.device)
        timings = measure(steps, options.repeats)
    first = next(iter(timings))
    rows = [Row(name, timing, None if name == first else timings[first]) for name, timing in timings.items()]
    if options.device == "cuda":
        torch.cuda.empty_cache()
    return rows


# -- train_gan.py itself ---------------------------------------------------------------------------


def end_to_end(recipe: str, seconds: float, *arguments: str) -> dict[str, float]:
    """Generator steps and real images a second over the second half of a run, from its log.

    The first half has the start of the process, the first samples and the warm-up of the first graphs. The images are
    made up unless ``arguments`` say which.
    """
    with tempfile.TemporaryDirectory() as folder:
        if not any(word.startswith("--data.") for word in arguments):
            arguments = (*arguments, "--data.name=folder", f"--data.root={made_up_images(Path(folder) / 'images.zip')}")
        command = [sys.executable, str(ROOT / "train_gan.py"), f"--config={ROOT / 'configs/gan' / recipe}.yaml"]
        command += [f"--output_dir={folder}/run", "--metrics.extractor=none", "--tracking.trackers=none"]
        command += [f"--training.max_minutes={seconds / 60}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
        log = read_lines(Path(folder) / "run" / "log.jsonl")
        config = parse_config(GanConfig, [f"--config={folder}/run/config.yaml"])
    half = log[len(log) // 2 :] or log
    images = sum(row["images_per_second"] for row in half) / len(half)
    return {
        "images_per_second": images,
        "steps_per_second": images / config.training.batch_size / config.training.n_critic,
    }


def made_up_images(path: Path, count: int = 4_000) -> Path:
    """A zip of random images of CIFAR-10's size, since speed doesn't depend on what they show."""
    pixels = torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8).numpy()
    with zipfile.ZipFile(path, "w") as archive:
        for i, image in enumerate(pixels):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "png", compress_level=0)
            archive.writestr(f"{i:05d}.png", file.getvalue())
    return path


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--mimicry", type=Path, help="folder that holds torch_mimicry, if it isn't installed")
    parser.add_argument("--batch", type=int, default=64, help="images a critic step (64)")
    parser.add_argument("--width", type=int, help="of all networks; their own by default")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (5)")
    parser.add_argument("--threads", type=int, help="of torch on the CPU; all by default")
    parser.add_argument("--networks", default=None, help="whole steps of these, by commas; all on cuda, else none")
    parser.add_argument("--end-to-end", type=float, default=0.0, help="seconds of train_gan.py for each recipe")
    parser.add_argument("--recipes", default="cifar10_paper,cifar10_paper_coded", help="of --end-to-end")
    parser.add_argument("--toy", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("more", nargs="*", help="after --: more arguments for train_gan.py")
    options = parser.parse_args(arguments)
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
        rows += task_rows(network, options)
    report("5 critic steps and a generator step", rows, options.device, options.json, **figures)


if __name__ == "__main__":
    main()
