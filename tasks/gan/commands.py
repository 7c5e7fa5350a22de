"""Commands for generators: sample images, interpolate, score, and find the nearest training images."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from cs_gan.data import ImageStore
from cs_gan.errors import ConfigError
from cs_gan.metrics import to_uint8
from cs_gan.report import save_grid
from cs_gan.training import parse_config
from models.pretrained import slerp
from tasks.gan.data import GanData, counts
from tasks.gan.recipe import GanConfig
from tasks.job import Command, Job
from tasks.options import positive, seed, seeds

# -- commands --------------------------------------------------------------------------------------


def sample(job: Job) -> None:
    """Generate images: a grid, or a folder of PNG files."""
    folder, grid = job.arguments.folder and empty_folder(job.arguments.folder), job.arguments.grid
    kept, made = [], 0
    for images in batches_of_images(job, asked_latents(job)):
        if folder:
            for number, image in enumerate(images, made):
                pixels = image.permute(1, 2, 0).squeeze(-1)  # (H, W, 3), or (H, W) if it is grey
                Image.fromarray(pixels.numpy()).save(folder / f"{number:06d}.png")
        if grid or not folder:
            kept.append(images)
        made += len(images)
    if folder:
        print(f"{made} images: {folder}")
    if kept:
        columns = math.ceil(math.sqrt(made))
        grey = kept[0].new_full((-made % columns, *kept[0].shape[1:]), 128)  # fills up the last row
        path = job.beside("samples.png", grid)
        save_grid(path, torch.cat([*kept, grey]), columns)
        print(f"samples: {path}")


def interpolate(job: Job) -> None:
    """Interpolate between the latents of each two consecutive seeds, along the sphere."""
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
    """Score the generator as in training; --metrics.<key>=, --data.<key>= and --seed= change the recipe."""
    config = recipe(job)
    step, metrics = job.snapshot.step, config.metrics
    data = data_of(job, config)
    reference = fitting(job, data.reference())
    evaluator, count = data.evaluator(reference, job.device), counts(metrics, len(reference)).samples
    about = {"network": "EMA", **job.about}
    scores = evaluator(job.generator, seed=config.seed, num_samples=count, about=about)
    if not job.state.is_main_process:
        return
    name = f"score-step{step}-{metrics.extractor}-{count}-seed{config.seed}.json"
    result = {"scores": scores.values, "primary": scores.primary, "provenance": scores.provenance}
    job.keep_scores(result, f": {count} images from seed {config.seed}", name)


def nearest(job: Job) -> None:
    """Show images beside the nearest training images, to see whether the generator copies them."""
    config, k = recipe(job), job.arguments.neighbours
    config.metrics.num_reference = None  # search all images
    data = data_of(job, config)
    store = fitting(job, data.training())
    evaluator = data.evaluator(store, job.device)
    images = torch.cat(list(batches_of_images(job, asked_latents(job))))
    distances, indices = (result.cpu() for result in evaluator.nearest(images, k))
    for number, row in enumerate(distances.tolist()):
        print(f"image {number:3}: " + "  ".join(f"{distance:.4g}" for distance in row))
    # For comparison: the distance of training images to their nearest other training image.
    chosen = torch.linspace(0, len(store) - 1, min(500, len(store))).long()
    others, places = (result.cpu() for result in evaluator.nearest(store.images[chosen], 2))
    others = torch.where(places[:, 0] == chosen, others[:, 1], others[:, 0])
    made, usual = distances[:, 0].median().item(), others.median().item()
    print(
        f"median distance to the nearest training image ({config.metrics.extractor} features): {made:.4g} for "
        f"generated images, {usual:.4g} from {len(chosen)} training images to the others. If the first number is far "
        "below the second, the generator copies training images."
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
    """The images of the latents, in batches."""
    with tqdm(total=len(z), desc="Images", unit="img", leave=False, disable=not sys.stderr.isatty()) as bar:
        for part in z.split(job.arguments.batch_size):
            yield to_uint8(job.generator(part.to(job.device))).cpu()
            bar.update(len(part))


def empty_folder(folder: Path) -> Path:
    """Create the folder of ``--folder``; ConfigError if it holds files."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ConfigError(f"--folder {folder} holds files already; give a new or an empty folder.")
    return folder


def recipe(job: Job) -> GanConfig:
    """The snapshot's recipe with the sample count of the final score, and the changes of the command line."""
    metrics = job.snapshot.config.get("metrics", {})
    count = metrics.get("final_samples") or metrics.get("num_samples", 2000)
    changed = {"metrics": metrics | {"num_samples": count, "final_samples": None}}
    config = parse_config(GanConfig, job.recipe_words(changed, "data|metrics"), prog="evaluate.py")
    if config.metrics.extractor == "none":
        raise ConfigError("the run was not scored; choose features with --metrics.extractor=<name>.")
    return config


def data_of(job: Job, config: GanConfig) -> GanData:
    """The loader of the recipe's images."""
    return GanData(config, job.state.local_main_process_first, job.state.is_main_process and sys.stderr.isatty())


def fitting(job: Job, store: ImageStore) -> ImageStore:
    """The images, if they have the generator's shape; ConfigError otherwise."""
    if store.image_shape != tuple(job.generator.image_shape):
        raise ConfigError(
            f"{job.path} makes images of {job.generator.image_shape}, but the data is {store.description}."
        )
    return store


# -- their options ---------------------------------------------------------------------------------


_OPTIONS: dict[str, dict[str, Any]] = {
    "batch_size": {"type": positive, "help": "images per forward pass of the generator (%(default)s)"},
    "count": {"type": positive, "help": "number of images (%(default)s)"},
    "seed": {"type": seed, "help": "seed of all images (%(default)s)"},
    "seeds": {"type": seeds, "help": "instead of --count and --seed: one image for each seed, such as 0,3,8-10"},
    "steps": {"type": positive, "help": "images from one seed to the next, including both ends (%(default)s)"},
    "neighbours": {"type": positive, "help": "training images for each generated image (%(default)s)"},
    "grid": {"type": Path, "help": "PNG file (beside the snapshot)"},
    "folder": {"type": Path, "help": "an empty or new folder for one PNG per image; no grid then, except with --grid"},
    "json": {"type": Path, "help": "file for scores and provenance (beside the snapshot)"},
}
_DRAWN = {"count": 64, "seed": 0, "seeds": None, "batch_size": 64, "grid": None}


def _command(run: Callable[[Job], None], defaults: dict[str, Any], sections: str = "") -> Command:
    options = {name: (default, _OPTIONS[name]) for name, default in defaults.items()}
    return Command({"gan": run}, options, sections)


COMMANDS = {
    "sample": _command(sample, {**_DRAWN, "folder": None}),
    "interpolate": _command(interpolate, {"seeds": [0, 1], "steps": 8, "batch_size": 64, "grid": None}),
    "score": _command(score, {"json": None}, "data|metrics"),
    "nearest": _command(nearest, {**_DRAWN, "count": 8, "neighbours": 7}, "data|metrics"),
}
