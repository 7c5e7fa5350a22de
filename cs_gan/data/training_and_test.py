"""Disjoint sets of images to train a classifier on and to score it on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from pathlib import Path

from cs_gan.data.datasets import open_images
from cs_gan.data.labelled import labelled, split, subset
from cs_gan.data.store import ImageStore
from cs_gan.data.undecoded import UndecodedImages
from cs_gan.errors import ConfigError, DataError


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
    """The training images and the images to score on: test images or held-out ones. Only those are decoded.

    Args:
        name, root, image_size, channels, progress: as for :func:`load_images`.
        holdout: number of training images to hold out. They are the same for all seeds of a run.
        validation: score on the held-out images. Digits have no test images, so they always do.
        limit: train on this many of the other images, chosen by ``limit_seed``.
        loading: a context around each search for the images, so that only one of several processes downloads.

    Raises:
        ConfigError: if only training images would be left to score on.
        DataError: for images without usable labels, or too few.
    """

    with ExitStack() as opened:

        def find(part: str) -> UndecodedImages:
            with loading():
                images = open_images(name, root, image_size=image_size, channels=channels, split=part)
            return opened.enter_context(closing(images))

        training = labelled(find("train"))
        source = training.split
        if holdout:
            try:
                training, held = split(training, holdout, seed=0)
            except DataError as error:
                raise DataError(f"data.holdout={holdout}: {error}") from error
        elif name == "digits":
            raise ConfigError("digits have no test images of their own: hold some out, such as --data.holdout=500.")
        if limit is not None:
            training = subset(training, limit, seed=limit_seed)
        if validation or name == "digits":
            test = held
        else:
            test = labelled(find("test"), training.class_names)
            if test.split == source:
                raise ConfigError(
                    f"{training.description} has no test images of its own, so training images would be scored. Give "
                    f"train/ and test/ folders, or hold some out, such as --data.holdout={max(1, len(training) // 10)} "
                    "--data.evaluate_on=validation."
                )
        return training.decoded(progress=progress), test.decoded(progress=progress)
