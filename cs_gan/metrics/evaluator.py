"""Score a generator against real images: extract features once, then compute all scores from them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.errors import MetricError
from cs_gan.metrics.all_scores import all_scores
from cs_gan.metrics.cache import Arrays, default_cache_dir
from cs_gan.metrics.extraction import FeatureReader
from cs_gan.metrics.extractors import load_extractor
from cs_gan.metrics.images import batches_of, check_uint8, generated_images
from cs_gan.metrics.reference import Reference
from cs_gan.metrics.scores import (
    DENSITY_NEIGHBOURS,
    KID_SUBSETS,
    MANIFOLD_LIMIT,
    MIN_REAL,
    MIN_SAMPLES,
    NEIGHBOURS,
    Scores,
    check_subsets,
    kid_subset_size,
    num_splits,
)
from cs_gan.metrics.sharding import Processes

CHUNK = 10_000  # number of reference features compared at a time


class Evaluator:
    """Scores of a generator, reproducible from (generator, seed).

    Images are uint8 in their native size, and each extractor resizes them in its own way. So a score belongs to one
    image size: 32 x 32 and 64 x 64 versions of a data set have different scores. All distances, precision and recall
    use the features of the same extractor, which is part of their names. (torch-fidelity uses VGG16's for precision and
    recall by default.)

    With several processes in torch.distributed, each builds an evaluator and all call it. Each reads its share of the
    images, the first computes the scores, and all return them. Scores don't depend on the number of processes, except
    for rounding differences between different processors.

    Args:
        extractor: a name in ``EXTRACTORS``: inception, efficientnet_lite0, digits or dinov2.
        reference: real images, uint8 (n, C, H, W), C = 1 or 3.
        reference_about: their description in JSON values: fingerprint, name, split, crop and other preparation. Part
            of the cache key and of every provenance.
        num_samples: how many images to generate, at least 4. Few samples bias a Fréchet distance upwards; if
            there are not more samples than features, the covariance is rank-deficient and the provenance says so.
            Compare only scores of equal counts; published FIDs use 50,000.
        num_reference: how many real images to use, a fixed random subset; default: all.
        notes: remarks for the provenance of every score, such as why the counts are what they are.
        batch_size: images per forward pass; it changes the score only by rounding, and by the noise that a generator
            draws itself.
        device: where the extractor runs.
        cache_dir: reference features and the digits classifier; default ``~/.cache/cs_gan/metrics``.
        weights: an explicit weight file for the extractor.
        progress: show a progress bar (only in the first process).

    Raises:
        MetricError: unknown extractor, missing or damaged weights, images of the wrong type, bad counts.
    """

    def __init__(
        self,
        extractor: str,
        reference: Tensor,
        *,
        reference_about: Mapping[str, object],
        num_samples: int,
        num_reference: int | None = None,
        notes: Sequence[str] = (),
        batch_size: int = 64,
        device: torch.device | str = "cpu",
        cache_dir: Path | None = None,
        weights: Path | None = None,
        progress: bool = False,
    ) -> None:
        check_uint8(reference, "reference")
        _check_count("num_samples", num_samples)
        _check_count("num_reference", len(reference) if num_reference is None else num_reference, MIN_REAL)
        if num_reference is not None and num_reference > len(reference):
            raise MetricError(
                f"num_reference = {num_reference}, but there are {len(reference)} reference images. Give at most "
                f"{len(reference)}, or None for all."
            )
        if batch_size < 1:
            raise MetricError(f"batch_size = {batch_size}; it must be at least 1")
        self.num_samples = num_samples
        self.device = torch.device(device)
        self._about = _json_values("reference_about", reference_about)
        self._notes = list(notes)
        folder = Path(cache_dir) if cache_dir else default_cache_dir()
        self._extractor = load_extractor(extractor, device=self.device, weights=weights, cache_dir=folder)
        self._reader = FeatureReader(self._extractor, self.device, tuple(reference.shape[2:]), batch_size, progress)
        self._reference = Reference(reference, self._about, num_reference, self._reader, folder)

    def __call__(
        self,
        generator: nn.Module,
        seed: int = 0,
        num_samples: int | None = None,
        about: Mapping[str, object] | None = None,
        *,
        kid_subsets: int = KID_SUBSETS,
    ) -> Scores:
        """Score ``generator``: latents (B, latent_dim) -> images in [-1, 1], (B, 1 or 3, H, W). Collective.

        Latents come from ``stream(seed, "evaluation")``. The global RNG and every submodule's training mode are
        restored afterwards.

        Args:
            generator: the network to score, the same in every process.
            seed: for its latents and its own noise.
            num_samples: how many images to generate; default: the evaluator's.
            about: a description of the generator in JSON values, such as ``{"step": 500, "network": "EMA"}``; added to
                the provenance.
            kid_subsets: how many subsets KID averages over. On a CPU, with 2,000 images of 1,280 features, 100 subsets
                take a third of the time of the features. Fewer subsets make it noisier, not biased.

        Raises:
            MetricError: no ``latent_dim``, images that aren't finite or of another size, a score that isn't finite,
                or a failure in any process.
        """
        start = time.perf_counter()
        count = self.num_samples if num_samples is None else num_samples
        _check_count("num_samples", count)
        check_subsets(kid_subsets)
        processes = Processes(self.device)
        provenance = self._provenance(count, kid_subsets) | {"seed": seed, "processes": processes.size, "seconds": 0.0}
        described = _json_values("about", about or {})
        if clash := sorted(described.keys() & provenance.keys()):
            raise MetricError(f"about = {described} would replace the provenance's own {', '.join(clash)}; rename them")
        real = self._reference.statistics(processes)
        generated = self._reader.read_together(
            processes,
            lambda share: generated_images(generator, count, self._reader.batch_size, seed, self.device, share),
            count,
            "Scoring",
        )
        values, provenance["seconds"] = processes.on_first(
            lambda: (self._values(generated, real, kid_subsets), time.perf_counter() - start)
        )
        return Scores(values, self._extractor.spec.named("FD"), provenance | described)

    def features(self, images: Tensor) -> Tensor:  # uint8 (n, C, H, W) -> (n, d)
        """The features that distances are computed from, on the CPU. Not collective.

        Raises:
            MetricError: images of the wrong type or size.
        """
        check_uint8(images, "images")
        return self._reader.read(batches_of(images, self._reader.batch_size), len(images), "Features")[0]

    def nearest(self, images: Tensor, k: int) -> tuple[Tensor, Tensor]:  # uint8 (n, C, H, W) -> (n, k), (n, k)
        """The ``k`` real images nearest to each image in feature space, out of all of them. Not collective.

        Returns:
            Euclidean distances, ascending, and indices into ``reference``.

        Raises:
            MetricError: images of the wrong type or size, or ``k`` beyond the number of real images.
        """
        if not 1 <= k <= len(self._reference.images):
            raise MetricError(f"k = {k} nearest of {len(self._reference.images)} reference images: choose 1 or more")
        features = self.features(images)
        distances, indices = features.new_empty(len(features), 0), torch.empty(len(features), 0, dtype=torch.long)
        for number, part in enumerate(batches_of(self._reference.all_features(), CHUNK)):
            # The faster way with a matrix product can't distinguish a copy from a near neighbour.
            new = torch.cdist(features, part, compute_mode="donot_use_mm_for_euclid_dist")
            new_indices = (torch.arange(len(part)) + number * CHUNK).expand(len(features), -1)
            candidates = torch.cat([indices, new_indices], 1)
            # The k best so far and those of this chunk.
            distances, order = torch.cat([distances, new], 1).topk(min(k, candidates.shape[1]), largest=False)
            indices = candidates.gather(1, order)
        return distances, indices

    def _values(self, generated: tuple[Tensor, ...] | None, real: Arrays | None, kid_subsets: int) -> dict[str, float]:
        assert generated is not None  # only the first process comes here
        assert real is not None
        return all_scores(self._extractor.spec, generated, real, kid_subsets)

    def _provenance(self, count: int, kid_subsets: int) -> dict[str, Any]:
        reference, spec = self._reference, self._extractor.spec
        notes = list(self._notes)
        for name, number in (("samples", count), ("reference images", reference.count)):
            if number <= spec.num_features:
                notes.append(f"biased: fewer {name} than features")
        return {
            "extractor": spec.name,
            "weights": str(self._extractor.weights),
            "weights_sha256": self._extractor.weights_sha256,
            "torch_fidelity": version("torch-fidelity"),
            "num_samples": count,
            "num_reference": reference.count,
            "reference": self._about,
            "image_size": list(reference.images.shape[1:]),
            "is_splits": num_splits(count),
            "kid": {
                "generated": count,
                "reference": reference.num_features_kept,
                "subsets": kid_subsets,
                "subset_size": kid_subset_size(count, reference.num_features_kept),
            },
            "precision_recall": {
                "generated": min(count, MANIFOLD_LIMIT),
                "reference": min(reference.num_features_kept, MANIFOLD_LIMIT),
                "neighbours": NEIGHBOURS,
                "density_neighbours": DENSITY_NEIGHBOURS,
                "features": f"those of {spec.name}, where torch-fidelity's default is VGG16",
            },
            "notes": notes,
        }


def _check_count(option: str, count: int, minimum: int = MIN_SAMPLES) -> None:
    if count < minimum:
        raise MetricError(
            f"{option} = {count}: precision, recall, density and coverage look at the neighbour number {minimum - 1}, "
            f"so at least {minimum} images are needed"
        )


def _json_values(option: str, mapping: Mapping[str, object]) -> dict[str, Any]:
    """A copy of ``mapping``, as it would be read from a JSON file."""
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(mapping), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise MetricError(f"{option} = {mapping!r} can't be written to a JSON file: {error}") from error
    return copy
