"""Load a trained classifier and its images, for scores and attacks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cs_gan.data import ImageStore, train_and_test
from cs_gan.errors import CheckpointError, ConfigError
from cs_gan.randomness import stream
from cs_gan.training import Snapshot
from models import Classifier, build_classifier
from tasks.classifier.recipe import ClassifierConfig
from tasks.job import Job, load_network


def classifier_of(snapshot: Snapshot, path: Path, device: torch.device) -> Classifier:
    """The classifier of a snapshot; CheckpointError for a snapshot of another network."""
    if snapshot.kind != "classifier":
        raise CheckpointError(f"{path} is no snapshot of a classifier: it holds a network of kind {snapshot.kind!r}")
    return load_network(build_classifier, snapshot, path, device, "a classifier")


def data_of(job: Job, config: ClassifierConfig, network: Classifier) -> tuple[ImageStore, ImageStore]:
    """Images to train and to score on; ConfigError if they don't have the classifier's shape and classes.

    A note says if held-out images may be some that it was trained on.
    """
    train, test = train_and_test(**config.data.parts(config.seed))
    if train.num_classes != network.num_classes or test.image_shape != network.input_shape:
        raise ConfigError(
            f"{job.path} is for {network.num_classes} classes of {network.input_shape} images, but the data is "
            f"{test.description}: give the data it was trained on by --data.<key>=."
        )
    trained = job.snapshot.images or {}
    classes = trained.get("classes") or list(train.class_names)
    if other := next((pair for pair in zip(classes, train.class_names, strict=False) if pair[0] != pair[1]), None):
        raise ConfigError(
            f"{job.path} was trained on the classes {_few(classes)}, but the data has {_few(train.class_names)}: class "
            f"{other[0]!r} would count as {other[1]!r}. Give images of the same classes, in folders of the same names."
        )
    if test.split.startswith("train") and trained.get("fingerprint", train.fingerprint) != train.fingerprint:
        print(
            f"note: {job.path} was trained on other images than those that are left here ({train.description}). So it "
            "may know some of the held-out ones, and the score may be too high. Give the data, data.holdout and seed "
            "of its training, or test images.",
            file=sys.stderr,
        )
    return train, test


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def shuffled(store: ImageStore) -> Tensor:  # -> (n,) int64
    """The indices of all images, in a random order that depends on their number only."""
    return torch.randperm(len(store), generator=stream(0, "order of scoring"))
