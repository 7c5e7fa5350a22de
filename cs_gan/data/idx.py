"""IDX, the file format of MNIST and Fashion-MNIST: a magic number, big-endian sizes, then bytes."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cs_gan.data.sources import ImageSource, array_source
from cs_gan.errors import DataError

MAX_IDX_BYTES = 2**31
"""Files that announce more raise an error before unpacking. Fashion-MNIST's largest has 47 million."""

_PREFIX = {"train": "train", "test": "t10k"}


def find_idx(root: Path, folder: str = "FashionMNIST") -> Path | None:
    """The folder at or below ``root`` that contains an IDX file of images, packed or not; None if there is none.

    ``folder`` is torchvision's for the data set. ``root`` has the files, or is torchvision's root or this folder.
    """
    names = [f"{prefix}-images-idx3-ubyte{end}" for prefix in _PREFIX.values() for end in ("", ".gz")]
    folders = (root / layout for layout in ("", f"{folder}/raw", "raw"))
    return next((each for each in folders if any((each / name).is_file() for name in names)), None)


def idx_source(folder: Path, *, name: str, split: str, classes: Sequence[str]) -> ImageSource:
    """The images and labels of ``split`` (train or test) from two IDX files, each with ``.gz`` or without.

    Raises:
        DataError: naming the file that is missing, damaged or doesn't match the other.
    """
    image_path = _existing(folder / f"{_PREFIX[split]}-images-idx3-ubyte")
    label_path = _existing(folder / f"{_PREFIX[split]}-labels-idx1-ubyte")
    images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{image_path} holds {len(images):,} images, but {label_path} {len(labels):,} labels. Get both again, "
            "from one place."
        )
    return array_source(images, labels, name=name, split=split, classes=classes)


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:  # -> the shape stated in the file
    """Read an IDX file of bytes, packed by gzip if its name says so.

    Raises:
        DataError: if it isn't one, doesn't have ``dimensions`` dimensions above 0, or is too short or long.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            if header[:4] != bytes([0, 0, 8, dimensions]):  # 8: unsigned bytes
                raise DataError(
                    f"{path} isn't an IDX file of bytes in {dimensions} dimensions: it starts with "
                    f"{header[:4].hex(' ')!r}, not '00 00 08 {dimensions:02x}'. Get it again."
                )
            shape = tuple(int(size) for size in np.frombuffer(header[4 : len(header) // 4 * 4], ">u4"))
            size = math.prod(shape)
            if len(shape) < dimensions or not 0 < size <= MAX_IDX_BYTES:
                raise DataError(f"{path} states an impossible size, {'x'.join(map(str, shape))}. Get it again.")
            content = file.read(size + 1)  # one more byte, to check that nothing follows
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({error}). It is truncated or damaged. Get it again.") from error
    if len(content) != size:
        state = "is truncated" if len(content) < size else "has bytes after its data"
        raise DataError(f"{path} {state}: it states {size:,} bytes and has {len(content):,}. Get it again.")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _existing(path: Path) -> Path:
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    raise DataError(f"{path} is missing, and so is {path.name}.gz. Put it in the same folder as the others.")
