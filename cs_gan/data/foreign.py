"""Data that can't be read: what it is, and what to do with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from cs_gan.data.names import IMAGE_EXTENSIONS, Parts, is_image
from cs_gan.errors import DataError

_SAVE = "Save its images as PNG files in class folders, such as <root>/train/<class>/0.png"
_INSIDE = "Unpack the zip and give the folder"  # in a folder they are read; see packed.py
_PYTHON_CIFAR = "Get the Python version, cifar-10-python.tar.gz or cifar-100-python.tar.gz, and unpack it"
_KINDS = (  # (what to find in the lower-case name, what it is, the way out); the first that fits counts
    (r"cifar-100?-python\.tar\.gz$", "CIFAR's Python version, packed", "Unpack it with tar -xzf and give the folder"),
    (r"cifar-100?-binary\.tar\.gz$", "CIFAR's binary version, packed", _PYTHON_CIFAR),
    (r"cifar-100?-matlab\.tar\.gz$", "CIFAR's MATLAB version, packed", _PYTHON_CIFAR),
    (r"(data_batch_\d|test_batch|(^|/)(train|test))\.bin$", "CIFAR's binary version", _PYTHON_CIFAR),
    (
        r"(data_batch_\d|test_batch|batches\.meta|(^|/)(train|test|meta))\.mat$",
        "CIFAR's MATLAB version",
        _PYTHON_CIFAR,
    ),
    (
        r"(data_batch_\d|test_batch)$",
        "CIFAR's Python version",
        "Use --data.name=cifar10 or cifar100, and keep the name of its folder: cifar-10-batches-py, cifar-100-python",
    ),
    (
        r"-(images|labels)-idx[13]-ubyte(\.gz)?$",
        "IDX files, as MNIST's",
        "Use --data.name=mnist or fashion_mnist, whichever they are",
    ),
    (r"(train|test|extra)_32x32\.mat$", "SVHN's cropped digits", "Use --data.name=svhn"),
    (
        r"stl10_binary(\.tar\.gz|/[\w.]+)$",
        "STL-10's binary version",
        "Use --data.name=stl10, and keep its folder's name",
    ),
    (r"\.parquet$", "Parquet, as the Hugging Face Hub stores data sets", _INSIDE),
    (r"\.arrow$", "Arrow, as Hugging Face's datasets saves them", _SAVE),
    (r"(^|/)(data|lock)\.mdb$|\.lmdb$", "an LMDB", _SAVE),
    (r"\.tfrecords?(-\d+-of-\d+)?$", "TFRecord", _SAVE),
    (r"\.tar$", "a tar archive", _INSIDE),
    (r"\.(tgz|tbz2?|txz)$|\.tar\.\w+$", "a packed tar archive", "Unpack it with tar -xf and give the folder"),
    (r"\.(7z|rar)$", "a 7z or rar archive", "Unpack it and give the folder"),
    (r"\.npz$", "NumPy arrays (npz)", _INSIDE),
    (r"\.npy$", "a NumPy array (npy)", _SAVE),
    (r"\.(h5|hdf5)$", "HDF5", _SAVE),
    (r"\.(pt|pth)$", "torch tensors", _SAVE),
    (r"\.(pkl|pickle)$", "Python pickles, which can run code", _SAVE),
    (r"\.mat$", "a MATLAB file", _SAVE),
    (r"\.(mp4|avi|mov|mkv|webm)$", "a video", "Save its frames as PNG files"),
    (r"\.dcm$", "DICOM", "Save its images as PNG files with 8 bits per channel"),
    (r"\.(gif|avif|heic|jp2|psd|exr|jxl|svg|pcx|tga)$", "pictures of another format", "Convert them to PNG or JPEG"),
    (r"\.zip$", "a zip", "Give it as --data.root"),
)
# What torchvision itself puts beside each other into one folder of downloads.
_TORCHVISION = ("cifar-10-batches-py", "cifar-100-python", "FashionMNIST", "MNIST", "celeba", "stl10_binary")
_DOWNLOADS = (
    *("cifar-10-python.tar.gz", "cifar-100-python.tar.gz", "stl10_binary.tar.gz"),
    *("train_32x32.mat", "test_32x32.mat", "extra_32x32.mat"),
)

_CLASSES = {  # of the sets that people keep as plain images, and by which such a folder is known
    "cifar10": frozenset(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]),
    "stl10": frozenset(["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]),
}
_CLASS_COUNTS = {"cifar10": 10, "cifar100": 100, "mnist": 10, "fashion_mnist": 10, "svhn": 10, "stl10": 10}


def refuse_another_set(name: str, classes: Sequence[str], root: Path) -> None:
    """DataError for plain images with the classes of another data set than ``name``, or with more than it has.

    Their scores would bear the wrong name. Fewer classes may be a part of the set.
    """
    theirs = {label.lower() for label in classes}
    if other := next((other for other, known in _CLASSES.items() if theirs == known and other != name), None):
        raise DataError(f"--data.name={name}, but {root} has the classes of {other}. Give --data.name={other}.")
    if len(theirs) > _CLASS_COUNTS[name]:
        raise DataError(
            f"--data.name={name}, which has {_CLASS_COUNTS[name]} classes, but {root} has {len(theirs)}. Give its own "
            "name, or --data.name=folder for any images."
        )


def images_only(entries: Iterable[Parts], root: Path, others: Sequence[Parts] = ()) -> list[Parts]:
    """The entries that are images. DataError if there are none; it names what there is instead."""
    images = [parts for parts in entries if is_image(parts)]
    if images:
        return images
    if foreign := what_is_there(others):
        raise DataError(f"{root} holds no images, but {foreign}")
    unnamed = [parts for parts in others if "." not in parts[-1]]
    hint = ""
    if unnamed:
        hint = f" {len(unnamed):,} files have no ending, such as {unnamed[0][-1]}: give them that of their format."
    raise DataError(f"{root} holds no images. Looked, at any depth, for {', '.join(IMAGE_EXTENSIONS)}.{hint}")


def what_is_there(others: Iterable[Parts]) -> str | None:
    """``train/0.parquet, which is Parquet. Save ...``: the first known kind of data, or None."""
    paths = ["/".join(parts) for parts in others]
    for pattern, what, way in _KINDS:
        if hits := [path for path in paths if re.search(pattern, path.lower())]:
            more = f" (and {len(hits) - 1:,} more)" if len(hits) > 1 else ""
            return f"{hits[0]}{more}, which is {what}. {way}."
    return None


def beside_downloads(others: Iterable[Parts]) -> list[Parts]:
    """Those files that torchvision didn't put there, when it downloaded other data sets to the same folder."""
    return [parts for parts in others if parts[0] not in _TORCHVISION and parts not in [(name,) for name in _DOWNLOADS]]


def local_path(root: str | Path) -> Path:
    """The path on this machine. DataError for an address, such as ``https://...``."""
    # Two letters or more: on Windows one letter is a drive. A Path has already lost a slash.
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(root)):
        hub = (
            " The Hugging Face Hub's data sets have names: --data.name=hf:<owner>/<name>." if scheme[1] == "hf" else ""
        )
        raise DataError(
            f"--data.root={root} is an address ({scheme[1]}), but images are read from this machine only. Download "
            f"them, and give the folder or zip.{hub}"
        )
    return Path(root).expanduser()
