"""Load a trained classifier and its images, for scores and attacks."""

from __future__ import annotations

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
    """Images to train and to score on; ConfigError if they don't have the classifier's shape and number of classes."""
    train, test = train_and_test(**config.data.parts(config.seed))
    if train.num_classes != network.num_classes or test.image_shape != network.input_shape:
        raise ConfigError(
            f"{job.path} is for {network.num_classes} classes of {network.input_shape} images, but the data is "
            f"{test.description}: give the data it was trained on by --data.<key>=."
        )
    return train, test


def shuffled(store: ImageStore) -> Tensor:  # -> (n,) int64
    """The indices of all images, in a random order that depends on their number only."""
    return torch.randperm(len(store), generator=stream(0, "order of scoring"))
