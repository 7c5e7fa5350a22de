"""Labelled images for supervised use: checks, balanced subsets, held-out sets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TypeVar

import torch
from torch import Tensor

from cs_gan.data.sampling import drawn
from cs_gan.data.store import ImageStore
from cs_gan.data.undecoded import UndecodedImages
from cs_gan.errors import DataError
from cs_gan.randomness import stream

Images = TypeVar("Images", ImageStore, UndecodedImages)


def labelled(store: Images, class_names: Sequence[str] | None = None) -> Images:
    """The store, if a classifier can use it.

    Args:
        store: images with labels; here and below, decoded or not.
        class_names: the classes of a trained network. They must include the classes of the store, whose labels are
            then renumbered by name. A test set need not have all classes. None for training data.

    Raises:
        DataError: if there are no labels, class folders without images, only one class, or classes that
            ``class_names`` doesn't have.
    """
    if store.empty_classes:
        folders = ", ".join(store.empty_classes[:5]) + (" ..." if len(store.empty_classes) > 5 else "")
        raise DataError(
            f"{store.description}: class folders without images: {folders}. Put images there or remove the folders."
        )
    labels = labels_of(store)
    if class_names is not None:
        return _renumbered(store, labels, class_names)
    if bool((labels == labels[0]).all()):
        raise DataError(
            f"{store.description}: all images are of one class, {store.class_names[int(labels[0])]!r}. A classifier "
            "needs two or more: give more class folders or, with --data.limit, more images."
        )
    return store


def labels_of(store: ImageStore | UndecodedImages) -> Tensor:  # -> (n,) int64
    """The labels; DataError if the store has none."""
    if store.labels is None:
        raise DataError(
            f"{store.description} has no labels, and supervised use needs them. Give class folders, two or more, such "
            "as <root>/train/<class>/*.png, or a data set that has labels, such as digits or cifar10."
        )
    return store.labels


def subset(store: Images, count: int, seed: int) -> Images:
    """``count`` images chosen by ``seed``, equally many per class (up to one), in the store's order.

    For the same store and seed, a smaller subset is part of a larger one.

    Raises:
        DataError: if the store has no labels, ``count`` is below the number of classes, or a class has too few.
    """
    of_class = _by_class(store, seed, "subset")
    classes = len(of_class)
    if count < classes:
        raise DataError(f"subset({count=}): give at least {classes}, one image for each class of {store.name}.")
    rows = drawn(len(store), count, seed, labels_of(store))
    counts = labels_of(store)[rows].bincount(minlength=classes)
    if len(rows) < count or counts.max() - counts.min() > 1:
        smallest = min(range(classes), key=lambda label: len(of_class[label]))
        size = len(of_class[smallest])
        raise DataError(
            f"subset({count=}): class {store.class_names[smallest]!r} of {store.name} has {size:,} images, "
            f"and its share would be {-(-count // classes):,}. Ask for at most {size * classes:,}."
        )
    what = f"{store.split}, {count:,} of {len(store):,} balanced by seed {seed}"
    return store.taken(rows, store.split, what)


def split(store: Images, held_out: int | float, seed: int) -> tuple[Images, Images]:  # -> rest, held out
    """Hold out images, in proportion from every class, chosen by ``seed``. Both parts keep the store's order.

    With a fixed seed, separate from the run's, all runs share the same split of the 1,797 digits.

    Args:
        store: images with labels.
        held_out: number of images (an int), or their share (a float between 0 and 1).
        seed: for the choice.

    Raises:
        DataError: if the store has no labels, or a part would be empty, or training would lack a class.
    """
    call = f"split({held_out=})"
    count = round(Fraction(held_out) * len(store)) if isinstance(held_out, float) else held_out
    if not 0 < count < len(store) or (isinstance(held_out, float) and held_out >= 1):
        raise DataError(
            f"{call}: give a share between 0 and 1 or a number of images between 0 and {len(store):,}, the size of "
            f"{store.name}, so that neither part is empty."
        )
    of_class = _by_class(store, seed, "split")
    exact = [Fraction(count * len(members), len(store)) for members in of_class]
    takes = [int(each) for each in exact]
    # The rest after rounding down goes to the largest remainders; on a tie, to the first classes.
    by_remainder = sorted(range(len(exact)), key=lambda label: takes[label] - exact[label])
    for label in by_remainder[: count - sum(takes)]:
        takes[label] += 1
    for label, (members, take) in enumerate(zip(of_class, takes, strict=True)):
        if take == len(members):
            raise DataError(
                f"{call}: of class {store.class_names[label]!r}, which has {take} images in {store.name}, no image "
                "would be left for training. Hold out less."
            )
    held = torch.cat([members[:take] for members, take in zip(of_class, takes, strict=True)]).sort().values
    rest = torch.cat([members[take:] for members, take in zip(of_class, takes, strict=True)]).sort().values
    names = f"{store.split} without held-out", f"{store.split} held-out"
    parts = [
        store.taken(rows, name, f"{name}, {len(rows):,} of {len(store):,} by seed {seed}")
        for rows, name in zip((rest, held), names, strict=True)
    ]
    return parts[0], parts[1]


def _renumbered(store: Images, labels: Tensor, names: Sequence[str]) -> Images:
    number = {name: i for i, name in enumerate(names)}
    if unknown := [name for name in store.class_names if name not in number]:
        raise DataError(
            f"{store.description}: class {unknown[0]!r} isn't among the {len(names)} that the network was trained on "
            f"({', '.join(map(repr, names[:10]))}{', ...' if len(names) > 10 else ''}). Give data of the same classes, "
            "under the same names."
        )
    table = torch.tensor([number[name] for name in store.class_names])
    return replace(store, labels=table[labels], class_names=tuple(names))


def _by_class(store: ImageStore | UndecodedImages, seed: int, purpose: str) -> list[Tensor]:
    """For each class the shuffled indices of its images. DataError for a class without images."""
    labels = labels_of(store)
    members = [(labels == label).nonzero()[:, 0] for label in range(store.num_classes)]
    if missing := [store.class_names[label] for label, found in enumerate(members) if not len(found)]:
        raise DataError(
            f"{purpose}: class {missing[0]!r} has no image in {store.description} ({len(missing)} of "
            f"{store.num_classes} classes). Load more of it (--data.limit), or number its classes from 0 without gaps."
        )
    return [
        found[torch.randperm(len(found), generator=stream(seed, purpose, label))] for label, found in enumerate(members)
    ]


def labels_fingerprint(store: ImageStore) -> str:
    """Of the label of each image, in order, and of the names of the classes; empty without labels."""
    if store.labels is None:
        return ""
    digest = hashlib.sha256(store.labels.numpy().tobytes())
    digest.update("\0".join(store.class_names).encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
