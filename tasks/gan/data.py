"""The images to train a GAN on, and those to score it against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cs_gan.data import ImageStore, load_images
from cs_gan.data.labelled import labelled
from cs_gan.errors import ConfigError, DataError
from cs_gan.metrics import Evaluator
from cs_gan.metrics.scores import MIN_SAMPLES
from tasks.gan.recipe import GanConfig, MetricsConfig


@dataclass(frozen=True)
class Counts:
    """How many images a score is computed from.

    Attributes:
        samples: generated images per evaluation during training.
        final_samples: generated images for the final and the best generator.
        reference: real images; None is all.
        note: what was lowered; empty if the recipe's counts hold.
    """

    samples: int
    final_samples: int
    reference: int | None
    note: str = ""


def counts(metrics: MetricsConfig, there: int) -> Counts:
    """The recipe's counts. If ``num_reference`` is above the images that are there, the counts follow the data.

    All real images are then used, and no more images are generated than that. A recipe that asks for all (null) keeps
    its number of samples, because a score's bias depends on it.
    """
    samples, asked = metrics.num_samples, metrics.num_reference
    final = metrics.final_samples or samples
    if asked is None or asked <= there:
        return Counts(samples, final, asked)
    most = max(there, MIN_SAMPLES)  # too few real images are the evaluator's error
    lowered = {"num_reference": (asked, there), "num_samples": (samples, min(samples, most))}
    if metrics.final_samples:
        lowered["final_samples"] = (final, min(final, most))
    told = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in lowered.items() if new < old)
    return Counts(min(samples, most), min(final, most), there, f"scored against {there} images, so {told}")


@dataclass(frozen=True)
class GanData:
    """Loads the images of a recipe.

    Attributes:
        config: the recipe.
        first: a context for loading, in which one of several processes goes first and downloads.
        shown: show progress bars.
    """

    config: GanConfig
    first: Callable[[], AbstractContextManager[Any]]
    shown: bool

    def training(self) -> ImageStore:
        """The images to train on, limited by ``data.limit``."""
        return self._load("train", self.config.data.limit, self.config.data.limit_seed)

    def reference(self, training: ImageStore | None = None) -> ImageStore:
        """All images of the split ``metrics.reference``. ``data.limit`` doesn't apply.

        Args:
            training: the result of :meth:`training`. If it is the whole split, it isn't loaded again.

        Raises:
            DataError: if the data has no such split.
            ConfigError: if its images are the training images, or have another shape.
        """
        which, limit = self.config.metrics.reference, self.config.data.limit
        if which == "train" and limit is None:
            return self.training() if training is None else training
        try:
            store = self._load(which)
        except DataError as error:
            raise DataError(f"metrics.reference = {which}: {error}") from error
        beside = self._load("train", limit=1) if training is None else training
        if which == "test" and store.split == beside.split:
            raise ConfigError(
                f"metrics.reference = test, but {beside.description} has no test images of its own, and those it is "
                "trained on would be scored against: give train/ and test/ folders, or --metrics.reference=train."
            )
        if store.image_shape != beside.image_shape:
            raise ConfigError(
                f"metrics.reference = {which}: {store.description}, but the images to train on are of "
                f"{beside.image_shape}. Give --data.image_size, which resizes both."
            )
        return store

    def held_out(self, training: ImageStore, count: int, seed: int) -> tuple[ImageStore | None, str]:
        """``count`` test images drawn by ``seed``, or None and the reason."""
        try:
            store = self._load("test", limit=count, limit_seed=seed)
        except DataError as error:
            return None, str(error)
        if store.split == training.split:
            return None, f"{training.name} has no test images of its own"
        if store.image_shape != training.image_shape:
            return None, f"test images are of {store.image_shape}, those of training of {training.image_shape}"
        return store, ""

    def evaluator(self, store: ImageStore, device: torch.device) -> Evaluator:
        """An evaluator with ``store`` as reference."""
        metrics = self.config.metrics
        count = counts(metrics, len(store))
        about = {"data": store.name, "count": len(store)}
        about |= {name: getattr(store, name) for name in ("split", "preparation", "fingerprint")}
        return Evaluator(
            metrics.extractor,
            store.images,
            reference_about=about,
            num_samples=count.samples,
            num_reference=count.reference,
            notes=[count.note] if count.note else [],
            batch_size=metrics.batch_size,
            device=device,
            weights=Path(metrics.weights) if metrics.weights else None,
            progress=self.shown,
        )

    def _load(self, split: str, limit: int | None = None, limit_seed: int | None = None) -> ImageStore:
        data = self.config.data
        with self.first():
            return load_images(
                data.name,
                data.root,
                image_size=data.image_size,
                channels=data.channels,
                split=split,
                limit=limit,
                limit_seed=limit_seed,
                progress=self.shown,
            )


def in_classes(store: ImageStore, names: Sequence[str]) -> tuple[ImageStore | None, str]:
    """The images with labels that are numbers of these classes, or None and the reason."""
    try:
        return labelled(store, names), ""
    except DataError as error:
        return None, str(error)


def class_shares(store: ImageStore, names: Sequence[str]) -> Tensor:  # -> (classes,) float64
    """How many images of each class there are; the same of all if the images don't have these classes."""
    fitting, _ = in_classes(store, names)
    if fitting is None or fitting.labels is None:
        return torch.ones(len(names), dtype=torch.float64)
    return fitting.labels.bincount(minlength=len(names)).double()
