"""What a trained generator makes, from its snapshot alone: ``python evaluate.py <command> <snapshot or run folder>``.

``--help`` lists the commands, and ``evaluate.py <command> --help`` what each takes. ``score`` alone can be spread
over processes: ``accelerate launch evaluate.py score <run folder>``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from cs_gan.data import ImageStore, load_images
from cs_gan.errors import CheckpointError, ConfigError, CsGanError
from cs_gan.metrics import Evaluator, to_uint8
from cs_gan.report import save_grid
from cs_gan.training import GanConfig, Snapshot, find_snapshot, parse_config, read_snapshot
from models import PretrainedGenerator
from models.pretrained import slerp


@dataclass(frozen=True)
class Job:
    """A command's arguments, and what their snapshot holds."""

    arguments: argparse.Namespace
    overrides: list[str]
    state: PartialState
    path: Path
    snapshot: Snapshot
    generator: PretrainedGenerator
    device: torch.device

    def beside(self, name: str, given: Path | None) -> Path:
        """Where a result goes: the path given, or this name beside the snapshot; its folder is made."""
        path = given or self.path.with_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


# -- commands --------------------------------------------------------------------------------------


def sample(job: Job) -> None:
    """Make images: a grid, or a folder of PNG files."""
    folder, grid = job.arguments.folder, job.arguments.grid
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"--folder {folder} holds files already; give a new or an empty folder.")
    kept, made = [], 0
    for images in batches_of_images(job, asked_latents(job)):
        if folder:
            for number, image in enumerate(images, made):
                pixels = image.permute(1, 2, 0).squeeze(-1)  # (H, W, 3), or (H, W) where it is grey
                Image.fromarray(pixels.numpy()).save(folder / f"{number:06d}.png")
        if grid or not folder:
            kept.append(images)
        made += len(images)
    if folder:
        print(f"{made} images: {folder}")
    if kept:
        columns = math.ceil(math.sqrt(made))
        grey = kept[0].new_full((-made % columns, *kept[0].shape[1:]), 128)  # where the last row is short
        path = job.beside("samples.png", grid)
        save_grid(path, torch.cat([*kept, grey]), columns)
        print(f"samples: {path}")


def interpolate(job: Job) -> None:
    """Draw the way from each seed's image to the next one's, along the sphere."""
    seeds, steps = job.arguments.seeds, job.arguments.steps
    if len(seeds) < 2:
        raise ConfigError("interpolate needs two seeds or more, such as --seeds 0,1,2.")
    t = torch.linspace(0, 1, steps)
    ends = [job.generator.latents(1, seed)[0] for seed in seeds]
    z = torch.cat([slerp(first, last, t) for first, last in pairwise(ends)])
    path = job.beside("interpolation.png", job.arguments.grid)
    save_grid(path, torch.cat(list(batches_of_images(job, z))), columns=steps)
    print(f"{len(seeds) - 1} rows of {steps} steps: {path}")


def score(job: Job) -> None:
    """Score the generator as training does; --metrics.<key>=, --data.<key>= and --seed= change the recipe's."""
    config = recipe(job)
    step, metrics = job.snapshot.step, config.metrics
    _, evaluator = compared(job, config)
    about = {"step": step, "network": "EMA", "snapshot": str(job.path)}
    scores = evaluator(job.generator, seed=config.seed, num_samples=metrics.num_samples, about=about)
    if not job.state.is_main_process:
        return
    print(f"{job.path}, step {step}: {metrics.num_samples} images from seed {config.seed}")
    width = max(map(len, scores.values))
    for name, value in scores.values.items():
        print(f"  {name:<{width}}  {value:.6g}")
    for note in scores.provenance.get("notes", []):
        print(f"  note: {note}")
    name = f"score-step{step}-{metrics.extractor}-{metrics.num_samples}-seed{config.seed}.json"
    path = job.beside(name, job.arguments.json)
    result = {"scores": scores.values, "primary": scores.primary, "provenance": scores.provenance}
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"score: {path}")


def nearest(job: Job) -> None:
    """Set images beside the training images nearest to them, to see whether the generator remembers those."""
    config, k = recipe(job), job.arguments.neighbours
    config.metrics.num_reference = None  # neighbours are looked for among all images
    store, evaluator = compared(job, config)
    images = torch.cat(list(batches_of_images(job, asked_latents(job))))
    distances, indices = (result.cpu() for result in evaluator.nearest(images, k))
    for number, row in enumerate(distances.tolist()):
        print(f"image {number:3}: " + "  ".join(f"{distance:.4g}" for distance in row))
    # The yardstick: training images, each held out of the set that it is compared with.
    chosen = torch.linspace(0, len(store) - 1, min(500, len(store))).long()
    others, places = (result.cpu() for result in evaluator.nearest(store.images[chosen], 2))
    others = torch.where(places[:, 0] == chosen, others[:, 1], others[:, 0])
    made, usual = distances[:, 0].median().item(), others.median().item()
    print(
        f"median distance to the nearest training image ({config.metrics.extractor} features): {made:.4g} for "
        f"generated images, {usual:.4g} for {len(chosen)} training images to the rest. A first number far below the "
        "second would mean copies."
    )
    path = job.beside("nearest.png", job.arguments.grid)
    pictures = torch.cat([images[:, None], store.images[indices]], dim=1).flatten(0, 1)
    save_grid(path, pictures, columns=1 + k)
    print(f"generated image, then its {k} nearest, in each row: {path}")


# -- what they share -------------------------------------------------------------------------------


def asked_latents(job: Job) -> Tensor:  # -> (n, latent_dim)
    """One latent for each of ``--seeds``, or ``--count`` of them from ``--seed``."""
    arguments, generator = job.arguments, job.generator
    if arguments.seeds is not None:
        return torch.cat([generator.latents(1, seed) for seed in arguments.seeds])
    return generator.latents(arguments.count, arguments.seed)


@torch.no_grad()
def batches_of_images(job: Job, z: Tensor) -> Iterator[Tensor]:  # (n, latent_dim) -> uint8 (B, C, H, W), CPU
    """The images of latents, a batch at a time."""
    with tqdm(total=len(z), desc="Images", unit="img", leave=False, disable=not sys.stderr.isatty()) as bar:
        for part in z.split(job.arguments.batch_size):
            yield to_uint8(job.generator(part.to(job.device))).cpu()
            bar.update(len(part))


def recipe(job: Job) -> GanConfig:
    """The snapshot's recipe, scored as at the end of training unless the command line says otherwise."""
    for word in job.overrides:
        if not re.match(r"--((data|metrics)\.\w+|seed)=", word):
            keys = "--data.<key>=..., --metrics.<key>=... and --seed=..."
            raise ConfigError(f"{word!r}: what can be changed is {keys}, each written with an equals sign.")
    metrics = job.snapshot.config.get("metrics", {})
    count = metrics.get("final_samples") or metrics.get("num_samples", 2000)
    plain = json.dumps(job.snapshot.config | {"metrics": metrics | {"num_samples": count, "final_samples": None}})
    config = parse_config(GanConfig, [f"--config={plain}", *job.overrides], prog="evaluate.py")
    if config.metrics.extractor == "none":
        raise ConfigError("the run was not scored; choose features with --metrics.extractor=<name>.")
    return config


def compared(job: Job, config: GanConfig) -> tuple[ImageStore, Evaluator]:
    """The recipe's images, and what scores against them or finds neighbours among them."""
    data, metrics, shown = config.data, config.metrics, job.state.is_main_process and sys.stderr.isatty()
    with job.state.local_main_process_first():  # one process downloads
        store = load_images(
            data.name, data.root, image_size=data.image_size, channels=data.channels, limit=data.limit, progress=shown
        )
    if store.image_shape != tuple(job.generator.image_shape):
        raise ConfigError(f"{job.path} makes images of {job.generator.image_shape}, and {store.description}.")
    about = {name: getattr(store, name) for name in ("split", "preparation", "fingerprint")}
    return store, Evaluator(
        metrics.extractor,
        store.images,
        reference_about={"data": store.name, **about},
        num_samples=metrics.num_samples,
        num_reference=metrics.num_reference,
        batch_size=metrics.batch_size,
        device=job.device,
        weights=Path(metrics.weights) if metrics.weights else None,
        progress=shown,
    )


# -- the command line ------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. `{self.prog} --help` lists what there is.")


def _seeds(text: str) -> list[int]:
    """``0,3,8-10`` -> [0, 3, 8, 9, 10]."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", part.strip())
        run = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if not 0 < len(run) <= 1_000_000:
            raise argparse.ArgumentTypeError(f"{text!r}: give seeds such as 0,3,8-10")
        seeds += run
    return seeds


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number above 0")
    return int(text)


# Each command takes a snapshot, --best, --device, and the options that stand with it below with their defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "device": {"help": "such as cpu or cuda:1 (a GPU where there is one)"},
    "batch_size": {"type": _positive, "help": "images per forward pass of the generator (%(default)s)"},
    "count": {"type": _positive, "help": "how many images (%(default)s)"},
    "seed": {"type": lambda text: _seeds(text)[0], "help": "of all of them (%(default)s)"},
    "seeds": {"type": _seeds, "help": "an image from each, which can be made again alone, such as 0,3,8-10"},
    "steps": {"type": _positive, "help": "images from one seed to the next, both ends among them (%(default)s)"},
    "neighbours": {"type": _positive, "help": "training images for each (%(default)s)"},
    "grid": {"type": Path, "help": "PNG file (beside the snapshot)"},
    "folder": {"type": Path, "help": "an empty or new folder, for a PNG each; a grid is then drawn only if asked for"},
    "json": {"type": Path, "help": "file for scores and provenance (beside the snapshot)"},
}
DRAWN = {"count": 64, "seed": 0, "seeds": None, "batch_size": 64, "grid": None}
COMMANDS: dict[str, tuple[Callable[[Job], None], dict[str, Any]]] = {
    "sample": (sample, {**DRAWN, "folder": None}),
    "interpolate": (interpolate, {"seeds": [0, 1], "steps": 8, "batch_size": 64, "grid": None}),
    "score": (score, {"json": None}),
    "nearest": (nearest, {**DRAWN, "count": 8, "neighbours": 7}),
}


def parse(words: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and the words that change the recipe."""
    parser = _Parser(prog="evaluate.py", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (run, options) in COMMANDS.items():
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__, allow_abbrev=False)
        command.add_argument("snapshot", type=Path, help="a snapshot, or a run folder for its snapshot.safetensors")
        command.add_argument("--best", action="store_true", help="of a run folder, its best.safetensors")
        for option, default in {**options, "device": None}.items():
            command.add_argument(f"--{option}", default=default, **OPTIONS[option])
    arguments, overrides = parser.parse_known_args(words)
    if overrides and arguments.command not in ("score", "nearest"):
        raise ConfigError(f"{arguments.command} doesn't take {' '.join(overrides)}; --help lists what it takes.")
    return arguments, overrides


def prepare(words: list[str] | None) -> Job:
    """Everything a command needs, checked."""
    arguments, overrides = parse(words)
    # Told so, or without a GPU, several processes talk over the CPU; accelerate wouldn't join them unasked.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available())
    if state.num_processes > 1 and (arguments.command != "score" or arguments.device):
        raise ConfigError("several processes are for score alone, without --device; start this one with python.")
    path = find_snapshot(arguments.snapshot, arguments.best)
    snapshot = read_snapshot(path)
    try:
        device = torch.device(arguments.device or state.device)
        generator = PretrainedGenerator.from_snapshot(path, device)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    except (RuntimeError, AssertionError) as error:  # torch's words for no such device differ by build
        raise ConfigError(f"--device {arguments.device} can't be used: {str(error).splitlines()[0]}") from error
    return Job(arguments, overrides, state, path, snapshot, generator, device)


def main(words: list[str] | None = None) -> int:
    """Run from the command line; 0 when done, 2 for what the user can mend, 130 after Ctrl-C."""
    try:
        job = prepare(words)
        COMMANDS[job.arguments.command][0](job)
        job.state.destroy_process_group()
    except (CsGanError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
