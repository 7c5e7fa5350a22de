"""Score an encoder's frozen features: accuracy of a linear probe and of nearest neighbours on held-out images."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.data import ImageStore, subset, train_and_test
from cs_gan.data.labelled import labels_of
from cs_gan.errors import ConfigError
from cs_gan.ssl import knn_accuracy, linear_probe
from cs_gan.training import parse_config
from models import build_encoder
from tasks.encoder.recipe import SslConfig
from tasks.job import Job, load_network, with_provenance

PROBE, NEIGHBOURS = "linear probe (%)", "kNN (%)"


def score_features(job: Job) -> None:
    """For an encoder, score its features with a linear probe and nearest neighbours."""
    start = time.perf_counter()
    config = parse_config(SslConfig, job.recipe_words({}, "data|metrics"), prog="evaluate.py")
    network = load_network(build_encoder, job.snapshot, job.path, job.device, "an encoder")
    train, test = train_and_test(**config.data.parts(config.seed))
    if test.image_shape != network.encoder.input_shape:
        raise ConfigError(
            f"{job.path} takes {network.encoder.input_shape} images, but the data is {test.description}: give the "
            "data it was trained on by --data.<key>=."
        )
    bank = labelled_bank(config, train)
    scores = feature_scores(network.encoder, config, bank, test, job.device)
    result = scored(config, bank, test, scores, time.perf_counter() - start, 1, job.about)
    job.keep_scores(result, f", on {test.description}, with {len(bank):,} labels", "accuracy.json")


def labelled_bank(config: SslConfig, train: ImageStore) -> ImageStore:
    """The training images whose labels the scores may use: the same for every seed of a run."""
    labels = config.metrics.labels
    return train if labels is None else subset(train, labels, seed=0)


def feature_scores(
    encoder: nn.Module, config: SslConfig, bank: ImageStore, test: ImageStore, device: torch.device
) -> dict[str, float]:
    """Accuracies in percent on the test images, from frozen features. ``encoder`` stays in evaluation mode.

    Args:
        bank: the images whose labels may be used.
    """
    metrics = config.metrics
    labelled = [part for store in (bank, test) for part in _features(encoder, store, metrics.batch_size, device)]
    return {
        PROBE: linear_probe(*labelled, decay=metrics.probe_decay),
        NEIGHBOURS: knn_accuracy(*labelled, k=metrics.k, temperature=metrics.knn_temperature),
    }


@torch.no_grad()
def _features(
    encoder: nn.Module, store: ImageStore, batch_size: int, device: torch.device
) -> tuple[Tensor, Tensor]:  # -> (n, F), (n,)
    """Features in float32 and labels of all images, without augmentation."""
    encoder.eval()
    features = []
    for rows in torch.arange(len(store)).split(batch_size):
        images = store.batch(rows).to(device, memory_format=torch.channels_last)
        features.append(encoder(images).float())
    return torch.cat(features), labels_of(store).to(device)


def scored(
    config: SslConfig,
    bank: ImageStore,
    test: ImageStore,
    scores: dict[str, float],
    seconds: float,
    processes: int,
    about: dict[str, Any],
) -> dict[str, Any]:
    """The accuracies, in the form of a line of metrics.jsonl."""
    more = {"num_labels": len(bank), "k": min(config.metrics.k, len(bank))}
    return with_provenance(scores, PROBE, test, seconds, processes, about, **more)
