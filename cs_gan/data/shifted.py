"""Test sets with CIFAR-10's classes and images from other sources, as published by their authors."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cs_gan.data.datasets import check_name, limited
from cs_gan.data.foreign import local_path
from cs_gan.data.preparation import Preparation
from cs_gan.data.sources import array_source
from cs_gan.data.store import ImageStore
from cs_gan.data.undecoded import UndecodedImages
from cs_gan.errors import DataError

SHIFTED_NAMES = ("cifar10.1", "cifar10.1_v4", "cifar10.2", "cifar10_c")
"""The names for :func:`load_shifted`. ``cifar10.1`` is its commonly used version 6."""

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_COUNTS = {"cifar10.1": 2000, "cifar10.1_v4": 2021, "cifar10.2": 2000, "cifar10_c": 50_000}
_SEVERITIES = 5
_SUBFOLDERS = ("", "datasets", "CIFAR-10-C")  # the folder of the files, the repository of 10.1, the unpacked 10-C
_SOURCES = {
    "cifar10.1": "https://github.com/modestyachts/CIFAR-10.1",
    "cifar10.1_v4": "https://github.com/modestyachts/CIFAR-10.1",
    "cifar10.2": "https://github.com/modestyachts/cifar-10.2",
    "cifar10_c": "https://zenodo.org/records/2535967",
}

Array = npt.NDArray[np.generic]


def load_shifted(
    name: str,
    root: str | Path,
    corruption: str | None = None,
    severity: int | None = None,
    *,
    image_size: int | None = None,
    channels: int | None = None,
    limit: int | None = None,
) -> ImageStore:
    """A shifted test set for networks trained on CIFAR-10. Nothing is downloaded.

    ============= ============================================================= ======================
    name          files in ``root``                                             images
    ============= ============================================================= ======================
    cifar10.1     cifar10.1_v6_data.npy, cifar10.1_v6_labels.npy                2,000
    cifar10.1_v4  cifar10.1_v4_data.npy, cifar10.1_v4_labels.npy                2,021
    cifar10.2     cifar102_test.npz                                             2,000
    cifar10_c     <corruption>.npy and labels.npy, five severities one by one   10,000 for a severity
    ============= ============================================================= ======================

    Args:
        name: one of :data:`SHIFTED_NAMES`.
        root: the folder with the files.
        corruption: required for cifar10_c, only there: a file name without ``.npy``.
        severity: only for cifar10_c: 1 to 5; None for all five, one after another.
        image_size: side in pixels, by default 32.
        channels: 3, or 1 for networks of grey images.
        limit: keep this many images, evenly spaced.

    Raises:
        DataError: for missing files, or arrays whose type, shape or count differs from the published ones.
    """
    check_name(name, SHIFTED_NAMES)
    if channels not in (None, 1, 3) or any(each is not None and each < 1 for each in (image_size, limit)):
        raise DataError(f"load_shifted({image_size=}, {channels=}, {limit=}): give 1 or 3 channels, and 1 or more.")
    if name != "cifar10_c" and (corruption is not None or severity is not None):
        raise DataError(f"load_shifted({name!r}): only cifar10_c has a corruption and a severity; leave them out.")
    folder = local_path(root)
    if not folder.is_dir():
        raise DataError(f"load_shifted({name!r}): {folder} isn't a folder. Give the one with {name}'s files.")
    what = "test"
    if name == "cifar10_c":
        images, labels = _cifar10_c(folder, corruption, severity)
        what = f"{corruption}, severity {severity or '1 to 5'}"
    elif name == "cifar10.2":
        images, labels = _npz(_file(name, folder, "cifar102_test.npz"), _COUNTS[name])
    else:
        stem = "cifar10.1_v4" if name == "cifar10.1_v4" else "cifar10.1_v6"
        images, labels = (_npy(_file(name, folder, f"{stem}_{part}.npy")) for part in ("data", "labels"))
        _check(folder / f"{stem}_*.npy", images, labels, _COUNTS[name])
    numbers = [int(label) for label in labels]
    source = array_source(np.asarray(images, np.uint8), numbers, name=name, split=what, classes=CIFAR10_CLASSES)
    prepare = Preparation(channels or 3, image_size or 32, stored_size=(32, 32))
    return limited(UndecodedImages.of(source, name, prepare), limit).decoded()


def _cifar10_c(folder: Path, corruption: str | None, severity: int | None) -> tuple[Array, Array]:
    labels_path = _file("cifar10_c", folder, "labels.npy")
    there = sorted(path.stem for path in labels_path.parent.glob("*.npy") if path.stem != "labels")
    if corruption not in there:
        raise DataError(
            f"load_shifted('cifar10_c', {corruption=}): {labels_path.parent} has {', '.join(there) or 'no corruption'}."
            " Give one that it has."
        )
    if severity is not None and severity not in range(1, _SEVERITIES + 1):
        raise DataError(f"load_shifted('cifar10_c', {severity=}): give 1 ... {_SEVERITIES}, or None for all.")
    path, count = labels_path.with_name(f"{corruption}.npy"), _COUNTS["cifar10_c"]
    images, labels = _npy(path), _npy(labels_path)
    _check(path, images, labels, count)
    each = count // _SEVERITIES
    part = slice(None) if severity is None else slice((severity - 1) * each, severity * each)
    return images[part], labels[part]


def _file(name: str, folder: Path, file: str) -> Path:
    """The file in the folder, or at its place in the authors' archive."""
    place = next((path for below in _SUBFOLDERS if (path := folder / below / file).is_file()), None)
    if place is None:
        raise DataError(f"load_shifted({name!r}): {folder / file} is missing. Get it from {_SOURCES[name]}.")
    return place


def _npy(path: Path) -> Array:
    """The array in a file, not read yet. Pickles could run code, so they raise an error."""
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(array, np.ndarray):
            return array
        problem = "an archive"
    except Exception as error:  # ValueError, EOFError, OSError, SyntaxError in the header, ...
        problem = _told(error)
    raise DataError(f"{path} isn't a .npy file of plain numbers ({problem}). Get it again.")


def _npz(path: Path, count: int) -> tuple[Array, Array]:
    limits = {"images": count * 3072 + 4096, "labels": count * 8 + 4096}  # bytes, with space for a header
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {key: archive.getinfo(f"{key}.npy").file_size for key in limits}
        if any(sizes[key] > limit for key, limit in limits.items()):
            raise DataError(f"{path} holds more than {count:,} images of 32x32 with their labels. Get it again.")
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except DataError:
        raise
    except Exception as error:  # BadZipFile, KeyError, zlib.error, ValueError for pickles, ...
        raise DataError(
            f"{path} isn't an .npz file with plain 'images' and 'labels' ({_told(error)}). Get it again."
        ) from error
    _check(path, images, labels, count)
    return images, labels


def _told(error: Exception) -> str:
    # numpy takes unknown content for a pickle and suggests loading it.
    return "its content isn't numbers" if "pickle" in str(error) else f"{type(error).__name__}: {error}"


def _check(path: Path, images: Array, labels: Array, count: int) -> None:
    expected = (count, 32, 32, 3)
    if images.dtype != np.uint8 or images.shape != expected:
        raise DataError(f"{path}: images are {images.dtype} {images.shape}, not uint8 {expected}. Get the file again.")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (count,):
        raise DataError(
            f"{path}: labels are {labels.dtype} {labels.shape}, not whole numbers ({count},). Get the file again."
        )
