"""The real images and their features, from memory, disk or computed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cs_gan.metrics.cache import Arrays, key_digest, load, load_or_compute, store
from cs_gan.metrics.extraction import FeatureReader
from cs_gan.metrics.images import batches_of
from cs_gan.metrics.scores import feature_statistics
from cs_gan.metrics.sharding import Processes
from cs_gan.randomness import stream

# Covariances use all images. For KID, precision and recall the features of this many images are kept.
FEATURES_KEPT = 10_000
# Part of the cache keys: a file of another version is not read. Since 3 the means of a reference are in float64.
VERSIONS = {"reference": 3, "features": 2}


class Reference:
    """Real images seen through one extractor.

    Args:
        images: uint8 (n, C, H, W).
        about: their description in JSON values; part of the cache key.
        count: how many of them the scores use, a fixed random subset; None for all.
        reader: reads their features.
        cache_dir: where the features are stored.
    """

    def __init__(
        self, images: Tensor, about: dict[str, Any], count: int | None, reader: FeatureReader, cache_dir: Path
    ) -> None:
        self.images = images
        self.count = len(images) if count is None else count
        self.num_features_kept = min(self.count, FEATURES_KEPT)
        self._about = about
        self._reader = reader
        self._cache_dir = cache_dir
        self._statistics: Arrays | None = None
        self._all: Tensor | None = None

    def statistics(self, processes: Processes) -> Arrays | None:
        """Collective: mu (d,), sigma (d, d) of the ``count`` images and features (m, d) of at most 10,000 of them.

        The first process returns them, the others None.

        Raises:
            MetricError: features that aren't finite, or a failure in any process.
        """
        if processes.on_first(self._is_available):
            return self._statistics
        outputs = self._reader.read_together(processes, self._batches, self.count, "Reference images")
        processes.on_first(lambda: self._store_statistics(outputs))
        return self._statistics

    def all_features(self) -> Tensor:  # (n, d)
        """Features of all images, independent of ``count``, in their order. Not collective."""
        if self._all is None:
            complete = self.count == self.num_features_kept == len(self.images)
            if complete and self._is_available():
                assert self._statistics is not None
                features = self._statistics["features"]
            else:
                path = self._path("features", len(self.images))
                features = load_or_compute(path, self._compute_all)["features"]
            self._all = torch.from_numpy(features)
        return self._all

    def _is_available(self) -> bool:
        if self._statistics is None:
            self._statistics = load(self._path("reference", self.count))
        return self._statistics is not None

    def _store_statistics(self, outputs: tuple[Tensor, ...] | None) -> None:
        assert outputs is not None  # only the first process comes here
        features = outputs[0]
        subset = features[_subset(self.count, self.num_features_kept, "kept features")].numpy()
        self._statistics = {**feature_statistics(features), "features": subset}
        store(self._path("reference", self.count), self._statistics)

    def _compute_all(self) -> Arrays:
        batches = batches_of(self.images, self._reader.batch_size)
        return {"features": self._reader.read(batches, len(self.images), "All reference images")[0].numpy()}

    def _batches(self, share: range) -> Iterator[Tensor]:  # yields uint8 (B, C, H, W)
        chosen = _subset(len(self.images), self.count, "reference")[share.start : share.stop]
        for index in batches_of(chosen, self._reader.batch_size):
            yield self.images[index]

    def _path(self, kind: str, count: int) -> Path:
        extractor = self._reader.extractor
        key = {
            "version": VERSIONS[kind],
            "extractor": extractor.spec.name,
            "weights": extractor.weights_sha256,
            "torch_fidelity": version("torch-fidelity"),
            "reference": self._about,
            "shape": list(self.images.shape),
            "count": count,
            "features_kept": self.num_features_kept,
            "images": self._images_sha256,
        }
        return self._cache_dir / f"{kind}-{extractor.spec.name}-{key_digest(key)}.safetensors"

    @cached_property
    def _images_sha256(self) -> str:
        """Of every pixel: descriptions of different data can be equal."""
        digest = hashlib.sha256()
        for part in self.images.split(4096):
            digest.update(part.contiguous().cpu().numpy().data)
        return digest.hexdigest()


def _subset(total: int, count: int, purpose: str) -> Tensor:
    """Sorted indices (count,) of a fixed random subset."""
    if count == total:
        return torch.arange(total)
    return torch.randperm(total, generator=stream(0, purpose))[:count].sort().values
