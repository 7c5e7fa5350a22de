"""Score a generator against real images: features once, then every score from them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cs_gan.errors import MetricError
from cs_gan.metrics.cache import Arrays, default_cache_dir, key_digest, load_or_compute
from cs_gan.metrics.extractors import load_extractor
from cs_gan.metrics.images import as_rgb, batches_of, check_uint8, generated_images
from cs_gan.metrics.scores import (
    Scores,
    Statistics,
    feature_statistics,
    frechet_distance,
    inception_score,
    num_splits,
)
from cs_gan.randomness import stream


class Evaluator:
    """Scores of a generator, reproducible from (generator, seed) alone.

    uint8 images go in at their native size and each extractor resizes them in its own way, so a score belongs to
    one image size: 32 x 32 and 64 x 64 versions of a data set have different scores.

    Args:
        extractor: a name in ``EXTRACTORS``: inception, efficientnet_lite0 or digits.
        reference: real images, uint8 (n, C, H, W), C = 1 or 3.
        reference_name: the data's fingerprint: name, split, size, preprocessing. Part of the cache's key.
        num_samples: how many images to generate, at least 2. Few samples bias a distance upwards; with no more
            samples than features the covariance is rank-deficient and the provenance says so. Compare only
            scores of equal counts; published FIDs use 50,000.
        num_reference: how many real images to use, a fixed random subset; default: all.
        batch_size: images per forward pass; it doesn't change the score beyond rounding.
        device: where the extractor runs.
        cache_dir: reference statistics and the digits classifier; default ``~/.cache/cs_gan/metrics``.
        weights: an explicit weight file for the extractor.
        download: allow fetching missing Inception weights.
        progress: show a bar.

    Raises:
        MetricError: unknown extractor, missing or damaged weights, images of the wrong type, bad counts.
    """

    def __init__(
        self,
        extractor: str,
        reference: Tensor,
        *,
        reference_name: str,
        num_samples: int,
        num_reference: int | None = None,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
        cache_dir: Path | None = None,
        weights: Path | None = None,
        download: bool = False,
        progress: bool = False,
    ) -> None:
        check_uint8(reference, "reference")
        for what, count in (("num_samples", num_samples), ("num_reference", num_reference or len(reference))):
            if count < 2:
                raise MetricError(f"{what} = {count}: a covariance needs at least 2 images")
        if num_reference is not None and num_reference > len(reference):
            raise MetricError(f"num_reference = {num_reference}, but there are {len(reference)} reference images")
        if batch_size < 1:
            raise MetricError(f"batch_size = {batch_size}; it must be at least 1")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache_dir()
        self.progress = progress
        self.reference_name = reference_name
        self._reference = reference
        self._subset = _reference_subset(len(reference), num_reference)
        self._statistics: Statistics | None = None
        self._extractor = load_extractor(
            extractor, device=self.device, weights=weights, cache_dir=self.cache_dir, download=download
        )

    def __call__(self, generator: nn.Module, seed: int = 0) -> Scores:
        """Score ``generator``: latents (B, latent_dim) -> images in [-1, 1], (B, 1 or 3, H, W).

        Latents come from ``stream(seed, "evaluation")``. The global RNG and every submodule's training mode are
        afterwards what they were before.

        Raises:
            MetricError: no ``latent_dim``, images that aren't finite or of another size, a score that isn't finite.
        """
        batches = generated_images(generator, self.num_samples, self.batch_size, seed, self.device)
        scores = self._score(batches, self.num_samples)
        scores.provenance["seed"] = seed
        return scores

    def score_images(self, images: Tensor) -> Scores:
        """Score images that exist already, uint8 (n, C, H, W) with n >= 2; ``num_samples`` plays no part.

        Raises:
            MetricError: images of the wrong type, size or count; a score that isn't finite.
        """
        check_uint8(images, "images")
        if len(images) < 2:
            raise MetricError(f"{len(images)} image: a covariance needs at least 2")
        return self._score(batches_of(images, self.batch_size), len(images))

    def reference_statistics(self) -> Statistics:
        """Mean (d,) and covariance (d, d) of the real images' features, from memory, disk or scratch."""
        if self._statistics is None:
            spec = self._extractor.spec
            path = self.cache_dir / f"reference-{spec.name}-{key_digest(self._cache_key())}.safetensors"
            self._statistics = dict(load_or_compute(path, self._compute_reference))
        return self._statistics

    def _score(self, batches: Iterable[Tensor], count: int) -> Scores:
        start = time.perf_counter()
        reference = self.reference_statistics()
        spec = self._extractor.spec
        features, logits = self._extract(batches, count, "Scoring")
        splits = num_splits(count)
        values = {spec.distance: frechet_distance(feature_statistics(features), reference)}
        values[spec.inception_score], deviation = inception_score(logits, splits)
        if splits > 1:  # the deviation over one split is 0 by construction and says nothing
            values[f"{spec.inception_score} std"] = deviation
        provenance = self._provenance(count, splits)
        provenance["seconds"] = time.perf_counter() - start
        return Scores(values, spec.distance, provenance)

    def _provenance(self, count: int, splits: int) -> dict[str, Any]:
        notes = []
        for what, number in (("samples", count), ("reference images", self._num_reference)):
            if number <= self._extractor.spec.num_features:
                notes.append(f"biased: fewer {what} than features")
        return {
            "extractor": self._extractor.spec.name,
            "weights": str(self._extractor.weights),
            "weights_sha256": self._extractor.weights_sha256,
            "torch_fidelity": version("torch-fidelity"),
            "num_samples": count,
            "num_reference": self._num_reference,
            "reference": self.reference_name,
            "image_size": list(self._reference.shape[1:]),
            "is_splits": splits,
            "notes": notes,
        }

    @property
    def _num_reference(self) -> int:
        return len(self._reference) if self._subset is None else len(self._subset)

    def _cache_key(self) -> dict[str, object]:
        # The name is the caller's word; a hash of some images catches the same name given to other data.
        some = self._reference[:: max(1, len(self._reference) // 256)].contiguous().cpu()
        return {
            "version": 1,
            "extractor": self._extractor.spec.name,
            "weights": self._extractor.weights_sha256,
            "torch_fidelity": version("torch-fidelity"),
            "reference": self.reference_name,
            "shape": list(self._reference.shape),
            "count": self._num_reference,
            "some_images": hashlib.sha256(some.numpy().tobytes()).hexdigest(),
        }

    def _compute_reference(self) -> Arrays:
        features, _ = self._extract(self._reference_batches(), self._num_reference, "Reference images")
        return dict(feature_statistics(features))

    def _reference_batches(self) -> Iterator[Tensor]:
        if self._subset is None:
            yield from batches_of(self._reference, self.batch_size)
        else:
            for index in batches_of(self._subset, self.batch_size):
                yield self._reference[index]

    def _extract(self, batches: Iterable[Tensor], count: int, title: str) -> tuple[Tensor, Tensor]:
        """uint8 batches -> features (n, d), logits (n, classes), on the CPU."""
        features, logits = [], []
        size = tuple(self._reference.shape[2:])
        module: Callable[[Tensor], tuple[Tensor, Tensor]] = self._extractor.module
        with tqdm(total=count, desc=title, unit="img", leave=False, disable=not self.progress) as bar:
            for batch in batches:
                if tuple(batch.shape[2:]) != size:
                    raise MetricError(
                        f"images of {tuple(batch.shape[2:])} pixels against reference images of {size}: "
                        "extractors resize, so scores across sizes would measure the resizing too"
                    )
                # Autocast around the training loop must not reach the scores.
                with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                    feature, logit = module(as_rgb(batch.to(self.device)))
                features.append(feature.cpu())
                logits.append(logit.cpu())
                bar.update(len(batch))
        return torch.cat(features), torch.cat(logits)


def _reference_subset(total: int, count: int | None) -> Tensor | None:
    """Sorted indices (count,) of a fixed random subset; None means all."""
    if count is None or count == total:
        return None
    return torch.randperm(total, generator=stream(0, "reference"))[:count].sort().values
