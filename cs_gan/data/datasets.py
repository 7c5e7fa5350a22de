"""Data sets by name, from the places where their images may be."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cs_gan.data.archives import zip_tree
from cs_gan.data.celeba import CELEBA_STORED, OTHER_SIZES, celeba_root, celeba_source
from cs_gan.data.celeba import FOLDER as CELEBA_FOLDER
from cs_gan.data.downloads import BY_HAND, DOWNLOAD_ROOT, may_download_to, published
from cs_gan.data.foreign import beside_downloads, local_path, refuse_another_set, what_is_there
from cs_gan.data.hub import HUB, hub_source
from cs_gan.data.idx import find_idx, idx_source
from cs_gan.data.packed import packed_files, packed_source
from cs_gan.data.preparation import CELEBA_CROP, CELEBA_SIZE, Preparation
from cs_gan.data.sampling import drawn
from cs_gan.data.sources import ImageSource, ImageTree, array_source, folder_tree
from cs_gan.data.store import ImageStore
from cs_gan.data.tiny_imagenet import FOLDER, SIZE, tiny_imagenet_source
from cs_gan.data.trees import tree_source
from cs_gan.data.undecoded import UndecodedImages
from cs_gan.digits import read_digits
from cs_gan.errors import DataError
from cs_gan.names import did_you_mean

DATASET_NAMES = (
    *("digits", "cifar10", "cifar100", "mnist", "fashion_mnist", "svhn", "stl10", "tiny_imagenet", "celeba"),
    "folder",
)
"""The names :func:`load_images` knows, beside ``hf:<owner>/<name>``; ``folder`` is any folder or zip of images."""
STL10_SIZE = 96
"""Width and height of STL-10's images."""
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""The folder in which Debian's package dataset-fashion-mnist puts the four IDX files."""
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
# torchvision is imported only where it reads or downloads: its import takes longer than torch's.


def load_images(
    name: str = "digits",
    root: str | Path | None = None,
    *,
    image_size: int | None = None,
    channels: int | None = None,
    split: str = "train",
    limit: int | None = None,
    limit_seed: int | None = None,
    progress: bool = False,
) -> ImageStore:
    """Load a data set by name and decode it once.

    ============= ===================================================== ========== ========
    name          images                                                image_size channels
    ============= ===================================================== ========== ========
    digits        scikit-learn's 1,797 digits, 8x8, all ``train``       16         1
    cifar10       torchvision's, or a folder or zip of its images       32         3
    cifar100      the same, with its 100 fine classes                   32         3
    mnist         the four IDX files, or a folder or zip; 28x28 with    32         1
                  a black border of 2 (no border at other sizes)
    fashion_mnist the same                                              32         1
    svhn          torchvision's cropped digits, or a folder or zip      32         3
    stl10         torchvision's, or a folder or zip; ``unlabeled`` too  96         3
    tiny_imagenet the official folder or zip, in place; 64x64   64         3
    celeba        torchvision's, or a folder or zip; centre crop 178    64         3
    folder        any folder or zip of images, or packed data           as stored  3
    hf:<o>/<name> a data set of the Hugging Face Hub, from its Parquet  as stored  3
    ============= ===================================================== ========== ========

    If all top folders of a folder or zip are named as splits (``train``, ``Testing``, ``val``), only those of ``split``
    are read, otherwise all images. ``val`` stands for a missing ``test``. Where a folder may be given, packed data may
    be too: Parquet, npz or WebDataset's tars, one file or a folder of them; see
    :func:`~cs_gan.data.packed.packed_source`. Images in several class folders get labels; numbered parts (``00000``)
    are no classes, and the labels of StyleGAN's ``dataset.json`` are read. CelebA is split by its
    ``list_eval_partition``. The description says what was taken, scaled and left out. For tiny_imagenet ``test`` means
    ``val``, because its test images have no labels. All except digits, tiny_imagenet and folder are downloaded if
    ``root`` is None (and, for fashion_mnist, Debian's package isn't installed) or an existing folder without data. With
    several processes, let one of them run this first. IDX files may be packed. They are in ``root`` or where
    torchvision puts them.

    Args:
        name: one of :data:`DATASET_NAMES`, or ``hf:<owner>/<name>``.
        root: a folder, a ``.zip``, or a file of packed data; digits need none. None means ``data/`` in the working
            directory. Links that lead outside of it, and links in a zip, raise an error.
        image_size: side of the square result in pixels.
        channels: 1 or 3; transparent pixels become white.
        split: ``train``, ``test``, or another split of the source; ``all`` for everything in a folder or zip.
        limit: keep this many images, evenly spaced over the data set so that all classes stay.
        limit_seed: draw them at random with this seed instead. With labels, each class gets the same number; see
            :func:`~cs_gan.data.sampling.drawn`. Only those are decoded.
        progress: show a progress bar.

    Raises:
        DataError: for unknown names or splits, missing, empty or broken data, or a failed download.
    """
    if limit is not None and limit < 1:
        raise DataError(f"--data.limit={limit}: give a positive number of images, or leave it out for all.")
    with closing(open_images(name, root, image_size=image_size, channels=channels, split=split)) as images:
        return limited(images, limit, limit_seed).decoded(progress=progress)


def open_images(
    name: str = "digits",
    root: str | Path | None = None,
    *,
    image_size: int | None = None,
    channels: int | None = None,
    split: str = "train",
) -> UndecodedImages:
    """Find or download a data set without decoding it. Arguments and errors are those of :func:`load_images`."""
    _check_arguments(name, image_size, channels)
    path = None if root is None else local_path(root)
    source = hub_source(name, path, split) if name.startswith(HUB) else _SOURCES[name](path, split)
    return UndecodedImages.of(source, name, _preparation(name, image_size, channels))


def limited(images: UndecodedImages, limit: int | None, seed: int | None = None) -> UndecodedImages:
    """``limit`` of the images, or all; with a seed as ``limit_seed`` of :func:`load_images`."""
    n = len(images)
    kept, what = n if limit is None else min(limit, n), images.what
    if seed is None or kept == n:
        rows = torch.tensor([i * n // kept for i in range(kept)])
    else:
        rows = drawn(n, kept, seed, images.labels)
        what += f", {kept:,} of {n:,} drawn{'' if images.labels is None else ' by class'} by seed {seed}"
    return images.taken(rows, images.split, what)


def check_name(name: str, names: Sequence[str]) -> None:
    """DataError, with the nearest name, unless ``name`` is one of ``names``."""
    if name not in names:
        hint = did_you_mean(name, names, most=1, show=repr)
        if Path(name).exists() or name.count("/") > 1:
            hint = f"For your own images: --data.name=folder --data.root={name}"
        elif "/" in name:
            hint = f"For a data set of the Hugging Face Hub give {HUB + name!r}."
        raise DataError(f"Unknown data set {name!r}; known are {', '.join(names)}. {hint}".rstrip())


def _check_arguments(name: str, image_size: int | None, channels: int | None) -> None:
    if not name.startswith(HUB):
        check_name(name, DATASET_NAMES)
    if image_size is not None and image_size < 1:
        raise DataError(f"--data.image_size={image_size}: give a positive number of pixels.")
    if channels not in (None, 1, 3):
        raise DataError(f"--data.channels={channels}: give 1 for grey or 3 for RGB.")


def _preparation(name: str, image_size: int | None, channels: int | None) -> Preparation:
    match name:
        case "digits":
            return Preparation(channels or 1, image_size or 16)
        case "cifar10" | "cifar100" | "svhn":
            return Preparation(channels or 3, image_size or 32, stored_size=(32, 32))
        case "mnist" | "fashion_mnist" if image_size in (None, 32):
            return Preparation(channels or 1, None, stored_size=(28, 28), border=2)
        case "mnist" | "fashion_mnist":
            return Preparation(channels or 1, image_size, stored_size=(28, 28))
        case "stl10":
            return Preparation(channels or 3, image_size or STL10_SIZE, stored_size=(STL10_SIZE, STL10_SIZE))
        case "celeba":
            size = image_size or CELEBA_SIZE
            return Preparation(channels or 3, size, CELEBA_CROP, CELEBA_STORED, other_sizes=OTHER_SIZES)
        case "tiny_imagenet":
            return Preparation(channels or 3, image_size or SIZE, stored_size=(SIZE, SIZE))
    return Preparation(channels or 3, image_size)


def _digits(root: Path | None, split: str) -> ImageSource:
    if split != "train":
        raise DataError(f"digits have no split {split!r}: all 1,797 images are 'train'.")
    pixels, labels = read_digits()
    return array_source(pixels, labels, name="digits", split="train", classes=list("0123456789"))


def _folder(root: Path | None, split: str) -> ImageSource:
    if root is None:
        raise DataError("--data.name=folder needs --data.root, a folder or zip of images.")
    return _read(root, split)


def _read(root: Path, split: str, of_tree: Callable[[ImageTree, str], ImageSource] = tree_source) -> ImageSource:
    """Packed data, or what ``of_tree`` makes of a folder or zip."""
    if root.is_file() and (packed := packed_files([(root.name,)])):
        return packed_source(root, packed, split)
    tree = _tree(root)
    if root.is_dir() and not tree.images and (packed := packed_files(beside_downloads(tree.others))):
        return packed_source(root, packed, split)
    return of_tree(tree, split)


def _tree(root: Path) -> ImageTree:
    if not root.exists():
        there = next(parent for parent in root.absolute().parents if parent.exists())
        raise DataError(f"--data.root={root} doesn't exist; the nearest folder that does is {there}.")
    if root.is_dir():
        return folder_tree(root)
    named_zip, foreign = root.suffix.lower() == ".zip", what_is_there([(root.name,)])
    if named_zip or (not foreign and zipfile.is_zipfile(root)):  # .npz and .pt are zips too, but not of images
        return zip_tree(root)
    raise DataError(f"--data.root={root} is neither a folder nor a zip" + (f": {foreign}" if foreign else "."))


def _cifar(name: str, root: Path | None, split: str) -> ImageSource:
    from torchvision.datasets import CIFAR10, CIFAR100
    from torchvision.datasets.utils import check_integrity

    dataset = CIFAR10 if name == "cifar10" else CIFAR100
    if root is not None and root.name == dataset.base_folder:
        root = root.parent

    def load(folder: Path, download: bool) -> ImageSource:
        packed = folder / dataset.filename
        if download and root is not None and packed.is_file() and not check_integrity(packed, dataset.tgz_md5):
            raise DataError(f"{packed} isn't the published file, or only a part of it. Remove it or get it again.")
        data = dataset(folder, train=split == "train", download=download)
        return array_source(data.data, data.targets, name=name, split=split, classes=data.classes)

    present = ((root or DOWNLOAD_ROOT) / dataset.base_folder).exists()
    return _from_torchvision(name, root, split, ("train", "test"), present, load)


def _mnist(name: str, root: Path | None, split: str) -> ImageSource:
    folder_name = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]  # torchvision's, and of its class
    # Files that lie in data/ itself may be of the other data set, whose files have the same names.
    idx_folder = find_idx(root or DOWNLOAD_ROOT / folder_name, folder_name)
    if idx_folder is None and root is None and name == "fashion_mnist":
        idx_folder = find_idx(DEBIAN_FASHION_MNIST)
    classes = list("0123456789") if name == "mnist" else list(FASHION)

    def load(folder: Path, download: bool) -> ImageSource:
        raw = idx_folder
        if raw is None:
            from torchvision import datasets

            raw = Path(getattr(datasets, folder_name)(folder, download=True).raw_folder)
        return idx_source(raw, name=name, split=split, classes=classes)

    return _from_torchvision(name, root, split, ("train", "test"), idx_folder is not None, load)


def _svhn(root: Path | None, split: str) -> ImageSource:
    from torchvision.datasets import SVHN

    files = {part: file for part, (_, file, _) in SVHN.split_list.items()}
    there = {part for part, file in files.items() if ((root or DOWNLOAD_ROOT) / file).is_file()}

    def load(folder: Path, download: bool) -> ImageSource:
        data = SVHN(folder, split, download=download)
        pixels = np.ascontiguousarray(data.data.transpose(0, 2, 3, 1))  # (n, 3, H, W) -> (n, H, W, 3)
        return array_source(pixels, data.labels, name="svhn", split=split, classes=list("0123456789"))

    if root is not None and there:  # each split is a file of its own, so the others may still be downloaded
        return published("svhn", root, split, tuple(files), split in there, load)
    return _from_torchvision("svhn", root, split, tuple(files), split in there, load)


def _stl10(root: Path | None, split: str) -> ImageSource:
    from torchvision.datasets import STL10

    if root is not None and root.name == STL10.base_folder:
        root = root.parent

    def load(folder: Path, download: bool) -> ImageSource:
        data = STL10(folder, split, download=download)
        pixels = np.ascontiguousarray(data.data.transpose(0, 2, 3, 1))  # (n, 3, H, W) -> (n, H, W, 3)
        source = array_source(pixels, data.labels, name="stl10", split=split, classes=data.classes)
        return replace(source, labels=None, classes=()) if split == "unlabeled" else source

    present = ((root or DOWNLOAD_ROOT) / STL10.base_folder).exists()
    return _from_torchvision("stl10", root, split, ("train", "test", "unlabeled"), present, load)


def _tiny_imagenet(root: Path | None, split: str) -> ImageSource:
    if root is None:  # not downloaded, so look at both places where a user may have put it
        places = (DOWNLOAD_ROOT / FOLDER, DOWNLOAD_ROOT / f"{FOLDER}.zip")
        root = next((place for place in places if place.exists()), None)
    elif root.is_dir():
        may_download_to(root)  # for its error about a folder of zips
    if root is None:
        raise DataError("tiny_imagenet is in neither {} nor {}. ".format(*places) + BY_HAND["tiny_imagenet"])
    return _read(root, split, tiny_imagenet_source)


def _celeba(root: Path | None, split: str) -> ImageSource:
    if root is not None and not may_download_to(root):
        return _read(celeba_root(root), split, celeba_source)

    def load(folder: Path, download: bool) -> ImageSource:
        if download:
            from torchvision.datasets import CelebA

            CelebA(folder, split="all", download=True)
        return celeba_source(folder_tree(folder / CELEBA_FOLDER), split)

    if root is not None:  # torchvision's folder is the one that contains celeba/
        root = root.parent if root.name == CELEBA_FOLDER else root
    folder = root or DOWNLOAD_ROOT
    present = celeba_root(folder) != folder
    return published("celeba", folder, split, ("train", "valid", "val", "test", "all"), present, load)


def _from_torchvision(
    name: str,
    root: Path | None,
    split: str,
    splits: tuple[str, ...],
    present: bool,
    load: Callable[[Path, bool], ImageSource],
) -> ImageSource:
    """The published files if they are ``present``, otherwise plain images, otherwise a download by torchvision."""
    folder = DOWNLOAD_ROOT if root is None else root
    # Look for plain images only in the given root: data/ may contain another data set.
    if not present and root is not None and not may_download_to(root):
        source = _read(root, split)
        refuse_another_set(name, source.classes, root)
        return source
    return published(name, folder, split, splits, present, load)


_SOURCES: dict[str, Callable[[Path | None, str], ImageSource]] = {
    "digits": _digits,
    "cifar10": partial(_cifar, "cifar10"),
    "cifar100": partial(_cifar, "cifar100"),
    "mnist": partial(_mnist, "mnist"),
    "fashion_mnist": partial(_mnist, "fashion_mnist"),
    "svhn": _svhn,
    "stl10": _stl10,
    "tiny_imagenet": _tiny_imagenet,
    "celeba": _celeba,
    "folder": _folder,
}
