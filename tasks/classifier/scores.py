"""Accuracy of a classifier on test and shifted images, plain and under RCI."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from cs_gan import RandomizedCodedInference
from cs_gan.data import ImageStore, corrupted, labelled, load_shifted
from cs_gan.data.labelled import labels_of
from cs_gan.errors import AttackError, ConfigError
from cs_gan.randomness import stream
from cs_gan.supervised import accuracy
from cs_gan.supervised.accuracy import NumberedBatch
from cs_gan.training import parse_config
from tasks.classifier.load import classifier_of, data_of, shuffled
from tasks.classifier.recipe import ClassifierConfig
from tasks.job import Job, with_provenance


def score_accuracy(job: Job) -> None:
    """Score a classifier as at the end of training; --metrics.<key>=, --data.<key>= and --seed= change the recipe."""
    start = time.perf_counter()
    config = parse_config(ClassifierConfig, job.recipe_words({}, "data|metrics"), prog="evaluate.py")
    network = classifier_of(job.snapshot, job.path, job.device)
    train, test = data_of(job, config, network)
    scores = accuracies(network, config, train, stores_to_score(config, test, full=True), device=job.device)
    about = {**job.about, "metrics": {"severity": config.metrics.severity}}
    result = scored(config, test, scores, time.perf_counter() - start, 1, about)
    job.keep_scores(result, f", on {test.description}", "accuracy.json")


def stores_to_score(
    config: ClassifierConfig, test: ImageStore, *, full: bool, limit: int | None = None
) -> Iterator[tuple[str, ImageStore]]:
    """The test images, with an empty name. If ``full``, also all shifted images by name, loaded one set at a time.

    Corrupted images are computed from the test images, or read from CIFAR-10-C if ``metrics.shifted`` has its folder.

    Args:
        limit: number of images from each published set.

    Raises:
        DataError: for shifted images that can't be read or have other classes.
    """
    yield "", test
    if not full:
        return
    metrics, published = config.metrics, dict(config.metrics.shifted)
    shape: dict[str, Any] = {"channels": test.image_shape[0], "image_size": test.image_shape[-1], "limit": limit}
    corruptions, severity = published.pop("cifar10_c", None), metrics.severity
    if corruptions is not None and not metrics.corruptions:
        raise ConfigError("metrics.shifted: name the corruptions of cifar10_c, such as --metrics.corruptions=fog,snow.")
    for name in metrics.corruptions:
        if corruptions is None:
            yield f"{name} {severity}", corrupted(test, name, severity)
        else:
            store = load_shifted("cifar10_c", corruptions, name, severity, **shape)
            yield f"CIFAR-10-C {name} {severity}", labelled(store, test.class_names)
    for name, folder in published.items():
        yield name, labelled(load_shifted(name, folder, **shape), test.class_names)


def check_shifted(config: ClassifierConfig, test: ImageStore) -> None:
    """Raise the errors of :func:`stores_to_score` before training. It makes one image of each set."""
    one = replace(test, images=test.images[:1], labels=labels_of(test)[:1])
    for _ in stores_to_score(config, one, full=True, limit=1):
        pass


def accuracies(
    network: nn.Module,
    config: ClassifierConfig,
    train: ImageStore,
    stores: Iterable[tuple[str, ImageStore]],
    *,
    device: torch.device,
    full: bool = True,
    rank: int = 0,
    processes: int = 1,
) -> dict[str, float]:
    """Accuracy in percent on each store, plain and under RCI.

    On the store with an empty name also cross-entropy and calibration error and, if ``full``, the accuracy of the plain
    network under FGSM and PGD. For RCI under attack use ``evaluate.py attack``, which also checks the attacks.

    Args:
        network: must not be attached to a CodedSmoothing.
        train: images for the reference bank. It fills up a short last group, so all groups have the same size.
    """
    metrics = config.metrics
    networks: dict[str, nn.Module] = {"": network}
    if metrics.rci_ratio is not None:
        bank = train.batch(shuffled(train)[: metrics.rci_group - 1]).to(device)
        rci: dict[str, Any] = {"blocks": metrics.rci_blocks, "votes": metrics.rci_votes, "reference": bank}
        networks[", RCI"] = RandomizedCodedInference(network, metrics.rci_ratio, **rci)
    scores = {}
    for name, store in stores:
        for how, each in networks.items():
            groups = _groups(store, metrics.rci_group, rank, processes)
            score = accuracy(each, groups, device=device, seed=config.seed)
            scores[f"accuracy{how}{', ' if name else ''}{name} (%)"] = score.percent
            if not name:
                scores[f"cross-entropy{how}"] = score.cross_entropy
                scores[f"calibration error{how} (%)"] = score.calibration_error
        if full and not name:
            whole, store = len(store), _drawn(store, metrics.attack_images, config.seed)
            on = "" if len(store) == whole else f" on {len(store)}"
            for attack, radii in (("FGSM", metrics.fgsm), ("PGD-20", metrics.pgd)):
                for eps in radii:
                    groups = _groups(store, metrics.rci_group, rank, processes)
                    attacked = _attacked(network, groups, attack, eps, config.seed, device)
                    scores[f"accuracy, {attack} {eps:g}{on} (%)"] = accuracy(network, attacked, device=device).percent
    return scores


def _drawn(store: ImageStore, count: int | None, seed: int) -> ImageStore:
    """That many of the images, the same in every process; all of them for None."""
    if count is None or count >= len(store):
        return store
    chosen = torch.randperm(len(store), generator=stream(seed, "attacked images"))[:count]
    return replace(store, images=store.images[chosen], labels=labels_of(store)[chosen])


def _attacked(
    network: nn.Module, groups: Iterable[NumberedBatch], attack: str, eps: float, seed: int, device: torch.device
) -> Iterator[NumberedBatch]:
    """The groups with all images attacked by FGSM, or by PGD of 20 steps; eps is for pixels in [0, 1].

    A network that diverged has no gradient at some images. Their group becomes NaN and so counts as wrong: the other
    scores of the run are kept, and no process waits for one that failed.
    """
    from cs_gan.attacks import eps_from_pixels, fgsm, pgd  # few runs are attacked

    for number, images, labels in groups:
        images, labels = images.to(device), labels.to(device)
        try:
            if attack == "FGSM":
                moved = fgsm(network, images, labels, eps=eps_from_pixels(eps))
            else:
                draws = stream(seed, "PGD", number)
                moved = pgd(network, images, labels, eps=eps_from_pixels(eps), steps=20, generator=draws)
        except AttackError as error:
            warnings.warn(f"{attack} {eps:g}: group {number} counts as wrong: {error}", stacklevel=2)
            moved = torch.full_like(images, math.nan)
        yield number, moved, labels


def _groups(store: ImageStore, size: int, rank: int, processes: int) -> Iterator[NumberedBatch]:
    """The images of one process, in groups that RCI codes together.

    The groups are drawn at random, the same in every process: folders are sorted by class, and images mixed only with
    others of their own class would keep their label.
    """
    labels, order = labels_of(store), shuffled(store)
    for number in range(rank, math.ceil(len(store) / size), processes):
        indices = order[number * size : (number + 1) * size]
        yield number, store.batch(indices), labels[indices]


def scored(
    config: ClassifierConfig,
    test: ImageStore,
    scores: dict[str, float],
    seconds: float,
    processes: int,
    about: dict[str, Any],
) -> dict[str, Any]:
    """The accuracies, in the form of a line of metrics.jsonl."""
    rci = {key: getattr(config.metrics, f"rci_{key}") for key in ("ratio", "blocks", "votes", "group")}
    rci |= {"order": "shuffled"}
    return with_provenance(scores, "accuracy (%)", test, seconds, processes, about, rci=rci)
