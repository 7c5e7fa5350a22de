"""NumPy's npz: arrays of pixels and of labels, under the names that are usual."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cs_gan.data.archives import content_problem
from cs_gan.data.named_labels import numbered
from cs_gan.data.sources import ImageSource
from cs_gan.data.splits import split_within
from cs_gan.errors import DataError

IMAGE_KEYS = ("arr_0", "images", "image", "x", "data", "imgs", "img")
"""Names of arrays of images; the first that there is counts. A split may be before or after: x_train, train_images."""
LABEL_KEYS = ("arr_1", "labels", "label", "y", "targets", "target")
"""Names of the labels that belong to them."""

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Keys:
    """The names of the images and the labels of one split; the split is None if they name none."""

    images: str
    labels: str | None
    split: str | None


def npz_keys(path: Path) -> list[Keys]:
    """The arrays of images in a file, with their labels.

    Raises:
        DataError: if it is no npz, or none of its arrays has a known name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            problems = {info.filename: content_problem(info) for info in archive.infolist()}
    except Exception as error:  # BadZipFile, OSError, NotImplementedError, struct.error, ...
        raise _broken(path, error) from error
    for name, problem in problems.items():
        if problem:
            said = problem.partition(". ")[0]  # the rest is about zips of pictures
            raise DataError(f"{path}: array {name.removesuffix('.npy')} {said}. Save it again with np.savez.")
    images, labels = _by_split(names, IMAGE_KEYS), _by_split(names, LABEL_KEYS)
    if not images:
        raise DataError(
            f"{path} has no array of images under a known name. It has: {', '.join(names)[:300] or 'nothing'}. Call it "
            f"{', '.join(IMAGE_KEYS[:5])}, or with its split, such as x_train."
        )
    return [Keys(key, labels.get(split), split) for split, key in images.items()]


def npz_source(path: Path, keys: Keys) -> ImageSource:
    """The pictures of one split, held in memory.

    Raises:
        DataError: if an array is broken or has another type or shape than images. Pickled objects are never loaded.
    """
    pixels, remark = _pixels(path, keys.images, _array(path, keys.images))
    values = None
    if keys.labels:
        labels = _array(path, keys.labels)
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if labels.ndim == 1 and labels.dtype.kind in "iuU":
            if len(labels) != len(pixels):
                raise DataError(
                    f"{path}: {keys.images} has {len(pixels):,} images, but {keys.labels} {len(labels):,} labels. Get "
                    "it again."
                )
            values = labels.tolist()
        else:
            remark += f", {keys.labels} ({labels.dtype}, {'x'.join(map(str, labels.shape))}) holds no classes"
    numbers, classes, said = numbered(path, values)
    names = [f"{path}: {keys.images}[{i}]" for i in range(len(pixels))]
    return ImageSource(
        names, lambda i: Image.fromarray(pixels[i]), numbers, "all", classes=classes, remark=remark + said
    )


def _by_split(names: list[str], known: tuple[str, ...]) -> dict[str | None, str]:
    """The name that counts for each split. ``x_train`` and ``train_x`` are ``x`` of train."""
    arrays: dict[str | None, tuple[int, str]] = {}
    for name in names:
        split = split_within((name,))
        rest = "_".join(word for word in re.split("[_-]", name.lower()) if not (split and split_within((word,))))
        if rest in known:
            arrays[split] = min(arrays.get(split, (len(known), "")), (known.index(rest), name))
    return {split: name for split, (_, name) in arrays.items()}


def _array(path: Path, key: str) -> Array:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            array: Array = arrays[key]
            return array
    except Exception as error:  # ValueError for pickles, BadZipFile, zlib.error, EOFError, MemoryError, ...
        raise _broken(path, error, f", array {key},") from error


def _pixels(path: Path, key: str, array: Array) -> tuple[npt.NDArray[np.uint8], str]:  # -> (n, H, W[, 1, 3, 4]), remark
    shape, remark = array.shape, ""
    if array.dtype != np.uint8:
        raise DataError(
            f"{path}: {key} is {array.dtype}, so black and white are unknown. Save it as uint8, with 0 black and 255 "
            "white."
        )
    if len(shape) == 4 and shape[3] not in (1, 3, 4) and shape[1] in (1, 3):
        array, remark = array.transpose(0, 2, 3, 1), f", {key} has its channels first"
    elif len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)):
        raise DataError(
            f"{path}: {key} has the shape {'x'.join(map(str, shape))}. Images are (n, height, width) or (n, height, "
            "width, 1, 3 or 4)."
        )
    if 0 in shape:
        raise DataError(f"{path}: {key} is empty, {'x'.join(map(str, shape))}. Get it again.")
    pixels = np.ascontiguousarray(array, np.uint8)
    return (pixels[..., 0] if pixels.ndim == 4 and pixels.shape[3] == 1 else pixels), remark


def _broken(path: Path, error: Exception, where: str = "") -> DataError:
    return DataError(
        f"{path}{where} can't be read as npz ({type(error).__name__}: {error}). It is truncated or damaged, or holds "
        "pickled objects, which are never loaded. Get it again, or save plain arrays."
    )
