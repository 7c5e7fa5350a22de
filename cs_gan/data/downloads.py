"""Data sets that torchvision downloads: where to, when, and how to get them by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torchvision.datasets import CIFAR10, CIFAR100, STL10

from cs_gan.data.foreign import beside_downloads, what_is_there
from cs_gan.data.packed import packed_files
from cs_gan.data.sources import ImageSource, folder_tree, has_images
from cs_gan.errors import DataError

DOWNLOAD_ROOT = Path("data")
"""The folder for torchvision's downloads if no root is given: in the working directory."""

_CIFAR_BY_HAND = (
    "Get {archive} from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it, so that {{root}}/{folder} exists; "
    "or give --data.root a folder or zip with train/<class>/*.jpg."
)
BY_HAND = {
    "cifar10": _CIFAR_BY_HAND.format(archive=CIFAR10.filename, folder=CIFAR10.base_folder),
    "cifar100": _CIFAR_BY_HAND.format(archive=CIFAR100.filename, folder=CIFAR100.base_folder),
    "fashion_mnist": "Install Debian's dataset-fashion-mnist, or get the four files from "
    "https://github.com/zalandoresearch/fashion-mnist and give their folder as --data.root.",
    "mnist": "Get the four files train-images-idx3-ubyte.gz, train-labels-..., t10k-... from "
    "https://ossci-datasets.s3.amazonaws.com/mnist/ and give their folder as --data.root.",
    "svhn": "Get train_32x32.mat and test_32x32.mat from http://ufldl.stanford.edu/housenumbers/ and put them into "
    "{root}.",
    "stl10": f"Get {STL10.url} and unpack it, so that {{root}}/{STL10.base_folder} exists.",
    "tiny_imagenet": "Get http://cs231n.stanford.edu/tiny-imagenet-200.zip and give its path as --data.root, or that "
    "of the unpacked folder.",
    "celeba": "Get img_align_celeba.zip from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (its Google Drive "
    "often refuses programs) and give its path as --data.root, or that of the unpacked folder.",
}


def published(
    name: str,
    folder: Path,
    split: str,
    splits: tuple[str, ...],
    present: bool,
    load: Callable[[Path, bool], ImageSource],
) -> ImageSource:
    """What torchvision has put into ``folder``, or, if it isn't ``present``, downloads to it."""
    if split not in splits:
        raise DataError(f"{name} has no split {split!r}; it has {', '.join(splits)}.")
    try:
        return load(folder, not present)
    except DataError:  # names the file itself
        raise
    except Exception as error:  # urllib's, gdown's, tarfile's, torchvision's RuntimeError on a wrong checksum
        problem = "are damaged or incomplete" if present else "couldn't be downloaded"
        raise DataError(
            f"{name}'s files in {folder} {problem} ({type(error).__name__}: {error}). "
            + BY_HAND[name].format(root=folder)
        ) from error


def may_download_to(root: Path) -> bool:
    """An existing folder without data, or with other downloads alone.

    A missing folder may be a typing error, and would download gigabytes.
    """
    if not root.is_dir() or has_images(root):
        return False
    if zips := sorted(path.name for path in root.glob("*.zip")):
        raise DataError(f"--data.root={root} has no images, but zips. Give one of {', '.join(zips)} as root.")
    others = beside_downloads(folder_tree(root).others)
    if packed_files(others):
        return False
    if found := what_is_there(others):
        raise DataError(f"--data.root={root} has no images, but {found}")
    return True
