"""Images to train a classifier on and images to score it on, which share none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from cs_gan.data.datasets import load_images
from cs_gan.data.labelled import labelled, split, subset
from cs_gan.data.store import ImageStore
from cs_gan.errors import ConfigError


def train_and_test(
    name: str,
    root: str | Path | None = None,
    *,
    image_size: int | None = None,
    channels: int | None = None,
    holdout: int = 0,
    validation: bool = False,
    limit: int | None = None,
    limit_seed: int = 0,
    progress: bool = False,
    loading: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> tuple[ImageStore, ImageStore]:
    """The training images and those to score on: the test set's, or held-out ones.

    Args:
        name, root, image_size, channels, progress: as for :func:`load_images`.
        holdout: training images to keep out; the same whatever the run's seed, so that runs over seeds share them.
        validation: score on those; digits, which have no test images of their own, always are.
        limit: train on so many of the others, chosen by ``limit_seed``.
        loading: entered around each loading, so that of several processes one downloads.

    Raises:
        ConfigError: if there would be no images to score on but those it was trained on.
        DataError: for images without usable labels, or too few.
    """

    def load(part: str) -> ImageStore:
        with loading():
            return load_images(name, root, image_size=image_size, channels=channels, split=part, progress=progress)

    training = labelled(load("train"))
    source = training.split
    if holdout:
        training, held = split(training, holdout, seed=0)
    elif name == "digits":
        raise ConfigError("digits have no test images of their own: hold some out, such as --data.holdout=500.")
    if limit is not None:
        training = subset(training, limit, seed=limit_seed)
    if validation or name == "digits":
        return training, held
    test = labelled(load("test"), training.class_names)
    if test.split == source:
        raise ConfigError(
            f"{training.description} has no test images of its own, and those it was trained on would be scored: give "
            "train/ and test/ folders, or hold some out with --data.holdout=1000 --data.evaluate_on=validation."
        )
    return training, test
