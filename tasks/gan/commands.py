"""Commands for generators: sample images, interpolate, score, and find the nearest training images."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from cs_gan.data import ImageStore
from cs_gan.errors import ConfigError
from cs_gan.files import replacing
from cs_gan.metrics import to_uint8
from cs_gan.report import save_grid, save_neighbours
from cs_gan.training import parse_config
from models import ClassDrawing
from models.latents import slerp
from tasks.gan.data import GanData, class_shares, counts
from tasks.gan.recipe import GanConfig
from tasks.job import OWN_GENERATOR, Command, Job
from tasks.loading import first_on_machine
from tasks.options import names, positive, seed, seeds

MOST_COLUMNS = 16  # of a grid with a column for each class

# -- commands --------------------------------------------------------------------------------------


def sample(job: Job) -> None:
    """Generate images: a grid, a folder of PNG files, or an .npz file for ADM's evaluation suite.

    Classes come in turn, and each has a column of the grid.
    """
    z, labels = asked(job)
    npz = job.arguments.npz
    folder, grid = job.arguments.folder and empty_folder(job.arguments.folder), job.arguments.grid
    if npz:
        write_npz(job.beside("samples.npz", npz), batches_of_images(job, z, labels), len(z))
        print(f"{len(z)} images: {npz}")
        if not (folder or grid):
            return
    batches, count = [], 0
    for images in batches_of_images(job, z, labels):
        if folder:
            for number, image in enumerate(images, count):
                pixels = image.permute(1, 2, 0).squeeze(-1)  # (H, W, 3), or (H, W) if it is grey
                Image.fromarray(pixels.numpy()).save(folder / f"{number:06d}.png")
        if grid or not folder:
            batches.append(images)
        count += len(images)
    if folder:
        print(f"{count} images: {folder}")
    if batches:
        classes = len(asked_classes(job))
        columns = classes if 1 < classes <= MOST_COLUMNS else math.ceil(math.sqrt(count))
        grey = batches[0].new_full((-count % columns, *batches[0].shape[1:]), 128)  # fills up the last row
        path = job.beside("samples.png", grid)
        save_grid(path, torch.cat([*batches, grey]), columns)
        print(f"samples: {path}")


def interpolate(job: Job) -> None:
    """Interpolate between the latents of each two consecutive seeds, along the sphere, for each class."""
    seeds, steps = job.arguments.seeds, job.arguments.steps
    if len(seeds) < 2:
        raise ConfigError("interpolate needs two seeds or more, such as --seeds 0,1,2.")
    t = torch.linspace(0, 1, steps)
    ends = [job.generator.latents(1, seed)[0] for seed in seeds]
    z = torch.cat([slerp(first, last, t) for first, last in pairwise(ends)])
    labels, classes = None, asked_classes(job)
    if classes:
        labels = torch.tensor(classes).repeat_interleave(len(z))
        z = z.repeat(len(classes), 1)
    path = job.beside("interpolation.png", job.arguments.grid)
    save_grid(path, torch.cat(list(batches_of_images(job, z, labels))), columns=steps)
    print(f"{len(z) // steps} rows of {steps} steps: {path}")


def score(job: Job) -> None:
    """Score the generator as in training; --metrics.<key>=, --data.<key>= and --seed= change the recipe."""
    config = recipe(job)
    step, metrics = job.snapshot.step, config.metrics
    data = data_of(job, config)
    reference = fitting(job, data.reference())
    evaluator, count = data.evaluator(reference, job.device), counts(metrics, len(reference)).samples
    generator = job.generator
    of_latents: nn.Module = generator
    if classes := generator.class_names:  # drawn as in training
        of_latents = ClassDrawing(generator, class_shares(reference, classes), generator.latent_dim)
    about = {"network": "EMA", **job.about}
    scores = evaluator(of_latents, seed=config.seed, num_samples=count, about=about)
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
    images = torch.cat(list(batches_of_images(job, *asked(job))))
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
    unit = f"the distance in {config.metrics.extractor} features"
    remark = f"Median distance to the nearest: {made:.4g} for generated images, {usual:.4g} between training images."
    save_neighbours(path, images, store.images[indices], distances, unit, remark)
    print(f"generated image, then its {k} nearest, in each row: {path}")


# -- what they share -------------------------------------------------------------------------------


def asked(job: Job) -> tuple[Tensor, Tensor | None]:  # -> (n, latent_dim), (n,)
    """Latents, and their classes if the generator has some.

    There is one latent for each of ``--seeds``, for every class; or there are ``--count`` of them from ``--seed``, for
    the classes in turn.
    """
    arguments, generator, classes = job.arguments, job.generator, torch.tensor(asked_classes(job))
    if arguments.seeds is None:
        z = generator.latents(arguments.count, arguments.seed)
    else:
        z = torch.cat([generator.latents(1, seed) for seed in arguments.seeds])
        z = z.repeat_interleave(max(1, len(classes)), dim=0)
    return z, classes[torch.arange(len(z)) % len(classes)] if len(classes) else None


def asked_classes(job: Job) -> list[int]:
    """The numbers of the classes in ``--class``, by default all; empty if the generator has no classes."""
    known, asked = job.generator.class_names, vars(job.arguments)["class"]
    if asked and not known:
        raise ConfigError(f"{job.path} holds a generator without classes: leave --class out.")
    classes = []
    for name in asked or known:
        if name not in known and not (name.isdecimal() and int(name) < len(known)):
            shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
            raise ConfigError(f"--class={name} is none of {job.path}: give one of {shown}, or a number from 0.")
        classes.append(known.index(name) if name in known else int(name))
    return classes


@torch.no_grad()
def batches_of_images(
    job: Job, z: Tensor, labels: Tensor | None
) -> Iterator[Tensor]:  # (n, latent_dim), (n,) -> uint8 (B, C, H, W), CPU
    """The images of the latents, in batches."""
    size = job.arguments.batch_size
    with tqdm(total=len(z), desc="Images", unit="img", leave=False, disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(z), size):
            parts = [part[start : start + size].to(job.device) for part in (z, labels) if part is not None]
            yield to_uint8(job.generator(*parts)).cpu()
            bar.update(len(parts[0]))


def write_npz(path: Path, batches: Iterable[Tensor], count: int) -> None:  # of uint8 (B, C, H, W)
    """Write ``count`` images, batch by batch, as ADM's evaluation suite reads them: RGB, so grey is repeated."""
    if path.suffix != ".npz":
        raise ConfigError(f"--npz {path}: give a name that ends in .npz.")
    with replacing(path) as file, ZipFile(file, "w") as npz, npz.open("arr_0.npy", "w", force_zip64=True) as out:
        for number, images in enumerate(batches):
            pixels = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
            if number == 0:
                shape = (count, *pixels.shape[1:])
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(out, header)
            out.write(pixels.tobytes())


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
    return GanData(config, partial(first_on_machine, job.state), job.state.is_main_process and sys.stderr.isatty())


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
    "class": {"type": names, "help": "classes by name or number, such as 3,cat (all)"},
    OWN_GENERATOR: {
        "metavar": "MODULE:CLASS",
        "help": "the generator's class, if it was trained with one; the name in a snapshot is never imported",
    },
    "steps": {"type": positive, "help": "images from one seed to the next, including both ends (%(default)s)"},
    "neighbours": {"type": positive, "help": "training images for each generated image (%(default)s)"},
    "grid": {"type": Path, "help": "PNG file (beside the snapshot)"},
    "folder": {"type": Path, "help": "an empty or new folder for one PNG per image; no grid then, except with --grid"},
    "npz": {"type": Path, "help": "an .npz file of all images, arr_0 (n, H, W, 3); no grid then, except with --grid"},
    "json": {"type": Path, "help": "file for scores and provenance (beside the snapshot)"},
}
_DRAWN = {"count": 64, "seed": 0, "seeds": None, "class": None, "batch_size": 64, "grid": None}


def _command(run: Callable[[Job], None], defaults: dict[str, Any], sections: str = "") -> Command:
    options = {name: (default, _OPTIONS[name]) for name, default in {**defaults, OWN_GENERATOR: None}.items()}
    return Command({"gan": run}, options, sections)


COMMANDS = {
    "sample": _command(sample, {**_DRAWN, "folder": None, "npz": None}),
    "interpolate": _command(interpolate, {"seeds": [0, 1], "class": None, "steps": 8, "batch_size": 64, "grid": None}),
    "score": _command(score, {"json": None}, "data|metrics"),
    "nearest": _command(nearest, {**_DRAWN, "count": 8, "neighbours": 7}, "data|metrics"),
}
