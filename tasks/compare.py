"""Commands on anyone's samples, without a snapshot: compare two sets, and write the statistics of one."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from cs_gan.data import ImageStore, load_images
from cs_gan.errors import ConfigError, DataError, MetricError
from cs_gan.files import file_sha256, write_text
from cs_gan.metrics import EXTRACTORS, Comparer, SampleSet, read_npz, read_statistics, write_statistics
from tasks.options import positive

KINDS = "a folder, zip or .npz of images, or an .npz with mu and sigma"
IMAGE_ARRAYS = ("arr_0", "images", "x_train")
"""Names of the images in an .npz file: numpy's own, as ADM's samples have it, and two usual ones."""


@dataclass(frozen=True)
class FileCommand:
    """A command that starts from files.

    Attributes:
        run: what it does, with the arguments and the device.
        files: the help of each file or folder that it takes, by name.
        options: as in :class:`tasks.job.Command`.
    """

    run: Callable[[argparse.Namespace, torch.device], None]
    files: dict[str, str]
    options: dict[str, tuple[Any, dict[str, Any]]]

    @property
    def help(self) -> str:
        """The description in --help."""
        return self.run.__doc__ or ""


# -- commands --------------------------------------------------------------------------------------


def compare(arguments: argparse.Namespace, device: torch.device) -> None:
    """Score anyone's samples against a reference: FID and all other scores of two sets of images, FID of statistics."""
    generated, reference = (
        read_samples(path, arguments.image_size) for path in (arguments.generated, arguments.reference)
    )
    with _own_options():
        scores = comparer(arguments, device).compare(generated, reference)
    width = max(map(len, scores.values))
    print(f"{arguments.generated} against {arguments.reference}")
    for name, value in scores.values.items():
        print(f"  {name:<{width}}  {value:.6g}")
    for note in scores.provenance["notes"]:
        print(f"  note: {note}")
    names = "-".join(path.resolve().stem for path in (arguments.generated, arguments.reference))
    path = arguments.json or Path(f"compare-{names}-{scores.provenance['extractor'] or 'unnamed'}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"scores": scores.values, "primary": scores.primary, "provenance": scores.provenance}
    write_text(path, json.dumps(result, indent=2) + "\n")
    print(f"compare: {path}")


def stats(arguments: argparse.Namespace, device: torch.device) -> None:
    """Write mu and sigma of the features of images, as pytorch-fid and clean-fid read them."""
    samples = read_samples(arguments.images, arguments.image_size)
    path = arguments.file or Path(f"{arguments.images.resolve().stem}-{arguments.extractor}.npz")
    if path.suffix != ".npz":
        raise ConfigError(f"--file {path}: give a name that ends in .npz, by which the other packages know it.")
    if path.resolve() == arguments.images.resolve():
        raise ConfigError(f"--file {path} holds the images; give another name.")
    with _own_options():
        statistics, about = comparer(arguments, device).statistics(samples)
    write_statistics(path, statistics, about)
    print(f"statistics of {about['num_images']} images ({about['extractor']}): {path}")


# -- what they share -------------------------------------------------------------------------------


def comparer(arguments: argparse.Namespace, device: torch.device) -> Comparer:
    """The comparer that the options describe."""
    return Comparer(
        arguments.extractor, arguments.batch_size, device, weights=arguments.weights, progress=sys.stderr.isatty()
    )


@contextmanager
def _own_options() -> Iterator[None]:
    """Errors about weights name the options of recipes; here they are called ``--weights`` and ``--extractor``."""
    try:
        yield
    except MetricError as error:
        raise MetricError(str(error).replace("--metrics.", "--")) from error


def read_samples(path: Path, image_size: int | None = None) -> SampleSet:
    """A folder, zip or npz of images, or statistics.

    Raises:
        DataError: for images that are missing, broken or of several sizes.
        MetricError: for a damaged file of arrays.
        ConfigError: for an .npz file with neither.
    """
    if path.suffix.lower() != ".npz":
        return _of_store(path, _images_in(path, image_size))
    if not path.is_file():
        raise DataError(f"{path} doesn't exist. Give {KINDS}.")
    arrays = read_npz(path)
    statistics, about = read_statistics(path, arrays) if {"mu", "sigma"} <= arrays.keys() else (None, {})
    name = next((name for name in IMAGE_ARRAYS if name in arrays), None)
    if name is None and statistics is None:
        raise ConfigError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}: give images as {' or '.join(IMAGE_ARRAYS)} "
            "(n, H, W, C) uint8, or statistics as mu and sigma."
        )
    if name is None:
        return SampleSet(str(path), None, statistics, about, {"sha256": file_sha256(path)})
    samples = _of_store(path, _store_of(path, name, arrays[name], image_size))
    return SampleSet(samples.name, samples.images, statistics, about, samples.about)


def _images_in(path: Path, image_size: int | None) -> ImageStore:
    try:
        return load_images("folder", path, image_size=image_size, split="all", progress=sys.stderr.isatty())
    except DataError as error:  # written for recipes
        raise DataError(str(error).replace("--data.root=", "").replace("--data.image_size", "--image_size")) from error


def _store_of(path: Path, name: str, pixels: npt.NDArray[Any], image_size: int | None) -> ImageStore:
    """The images of an array as a store, without a copy unless they are resized."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] not in (1, 3)):
        raise DataError(
            f"{path}: {name} is {pixels.dtype} {pixels.shape}; images are uint8 (n, H, W, C) with C = 1 or 3, or "
            "(n, H, W)."
        )
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    prepared = "as stored"
    if image_size is not None and pixels.shape[1:3] != (image_size, image_size):
        pixels, prepared = _resized(pixels, image_size)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return ImageStore(images, None, "npz", f"{path}: {len(images):,} images", preparation=prepared)


def _resized(pixels: npt.NDArray[np.uint8], side: int) -> tuple[npt.NDArray[np.uint8], str]:
    """Resized as the images of a folder are."""
    from cs_gan.data.preparation import Preparation

    prepare = Preparation(pixels.shape[3], side)
    found = [prepare(Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image)) for image in pixels]
    return np.stack(found).transpose(0, 2, 3, 1), str(prepare)


def _of_store(path: Path, store: ImageStore) -> SampleSet:
    about: Mapping[str, Any] = {"count": len(store), "preparation": store.preparation, "fingerprint": store.fingerprint}
    return SampleSet(str(path), store.images, about=about)


_OPTIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "extractor": (
        "inception",
        {"choices": list(EXTRACTORS), "help": "features (%(default)s); only inception gives FID"},
    ),
    "weights": (None, {"type": Path, "help": "a weight file for the extractor"}),
    "image_size": (None, {"type": positive, "help": "resize all images to this side first (as stored)"}),
    "batch_size": (64, {"type": positive, "help": "images per forward pass of the extractor (%(default)s)"}),
}
FILE_COMMANDS = {
    "compare": FileCommand(
        compare,
        {"generated": f"samples: {KINDS}", "reference": f"real images: {KINDS}"},
        {**_OPTIONS, "json": (None, {"type": Path, "help": "file for scores and provenance (compare-<names>.json)"})},
    ),
    "stats": FileCommand(
        stats,
        {"images": "a folder, zip or .npz of images"},
        {**_OPTIONS, "file": (None, {"type": Path, "help": "the .npz to write (<name>-<extractor>.npz)"})},
    ),
}
