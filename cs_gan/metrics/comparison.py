"""Compare two sets of anyone's samples: images, or statistics of their features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cs_gan.errors import MetricError
from cs_gan.metrics.all_scores import all_scores, inception_scores
from cs_gan.metrics.cache import default_cache_dir
from cs_gan.metrics.extraction import FeatureReader
from cs_gan.metrics.extractors import EXTRACTORS, LoadedExtractor, load_extractor
from cs_gan.metrics.images import batches_of, check_uint8
from cs_gan.metrics.reference import Reference
from cs_gan.metrics.scores import (
    DENSITY_NEIGHBOURS,
    KID_SUBSETS,
    MANIFOLD_LIMIT,
    NEIGHBOURS,
    Scores,
    Statistics,
    feature_statistics,
    frechet_distance,
    kid_subset_size,
    num_splits,
)
from cs_gan.metrics.sharding import Processes


@dataclass(frozen=True, eq=False)
class SampleSet:
    """Samples of anyone: images, statistics of their features, or both (as ADM's reference batches hold them).

    Attributes:
        name: for messages, such as the path.
        images: uint8 (n, C, H, W), or None.
        statistics: mu (d,) and sigma (d, d), or None. If there are both, the Fréchet distance uses these.
        statistics_about: the provenance in the file of statistics; {} if others made it.
        about: a description in JSON values, for the provenance of scores.
    """

    name: str
    images: Tensor | None = None
    statistics: Statistics | None = None
    statistics_about: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparer:
    """Scores of sample sets over one extractor's features.

    Attributes:
        extractor: a name in ``EXTRACTORS``. It is loaded only if there are images.
        batch_size: images per forward pass.
        device: where the extractor runs.
        weights: an explicit weight file.
        cache_dir: features of reference images; default ``~/.cache/cs_gan/metrics``.
        progress: show a progress bar.
    """

    extractor: str = "inception"
    batch_size: int = 64
    device: torch.device | str = "cpu"
    weights: Path | None = None
    cache_dir: Path | None = None
    progress: bool = False

    def compare(self, generated: SampleSet, reference: SampleSet) -> Scores:
        """The scores of ``generated`` against ``reference``.

        Two sets of images give all scores, images against statistics the Fréchet distance and the Inception Score,
        statistics alone the Fréchet distance.

        Raises:
            MetricError: sets that don't fit each other, too few images, or missing weights.
        """
        sets = (generated, reference)
        label, notes = self._label(sets), _notes(sets)
        loaded = self._load() if any(each.images is not None for each in sets) else None
        _check_same("weights_sha256", sets, loaded.weights_sha256 if loaded else None)
        _check_same("image_size", sets, None)
        values: dict[str, float] = {}
        own: list[Statistics | None] = [None, None]
        outputs = real = None
        if loaded and generated.images is not None:
            outputs = self._read(loaded, generated.images)
            own[0] = feature_statistics(outputs[0])
        if loaded and reference.images is not None:
            reader = self._reader(loaded, reference.images)
            about = dict(reference.about)
            cache = self.cache_dir or default_cache_dir()
            real = Reference(reference.images, about, None, reader, cache).statistics(Processes(reader.device))
            own[1] = real
        if loaded and outputs and real:
            values = all_scores(loaded.spec, outputs, real, KID_SUBSETS)
        elif loaded and outputs:
            values = inception_scores(loaded.spec, outputs)
        first, second = (each.statistics or mine for each, mine in zip(sets, own, strict=True))
        assert first is not None
        assert second is not None
        values = {label: frechet_distance(first, second)} | {k: v for k, v in values.items() if k != label}
        for each, what in zip(sets, ("samples", "reference images"), strict=True):
            count = _count(each)
            if count is not None and count <= len(first["mu"]):
                notes.append(f"biased: fewer {what} than features")
        provenance = self._provenance(sets, loaded) | {"notes": notes}
        return Scores(values, label, provenance)

    def statistics(self, samples: SampleSet) -> tuple[Statistics, dict[str, Any]]:
        """mu and sigma of the features of images, and their provenance for the file.

        Raises:
            MetricError: no images, too few, or missing weights.
        """
        if samples.images is None:
            raise MetricError(f"{samples.name} holds statistics already; give images")
        loaded = self._load()
        statistics = feature_statistics(self._read(loaded, samples.images)[0])
        return statistics, {
            "extractor": loaded.spec.name,
            "weights_sha256": loaded.weights_sha256,
            "torch_fidelity": version("torch-fidelity"),
            "num_images": len(samples.images),
            "image_size": list(samples.images.shape[2:]),
            "images": dict(samples.about),
        }

    def _label(self, sets: tuple[SampleSet, SampleSet]) -> str:
        """The name of the Fréchet distance; MetricError if the features of the two sets differ."""
        features, widths = [], []
        for each in sets:
            found, width = self._features(each)
            features.append(found)
            widths.append(width)
        if features[0] != features[1] or widths[0] != widths[1]:
            told = " and ".join(
                f"{each.name} is of {name or 'unnamed'} features ({width})"
                for each, name, width in zip(sets, features, widths, strict=True)
            )
            raise MetricError(f"{told}: a distance needs the same features. Give --extractor, or images instead")
        return EXTRACTORS[features[0]].named("FD") if features[0] else f"FD, {widths[0]} unnamed features"

    def _features(self, samples: SampleSet) -> tuple[str | None, int]:
        """The extractor of a set's features, None if unknown, and their number."""
        spec = EXTRACTORS.get(self.extractor)
        if spec is None:
            raise MetricError(f"there is no extractor {self.extractor!r}; choose one of {', '.join(EXTRACTORS)}")
        if samples.statistics is None:
            return spec.name, spec.num_features
        width = len(samples.statistics["mu"])
        named = samples.statistics_about.get("extractor")
        if named is not None:
            return (named if named in EXTRACTORS else None), width
        return (spec.name if width == spec.num_features else None), width

    def _load(self) -> LoadedExtractor:
        return load_extractor(self.extractor, device=self.device, weights=self.weights, cache_dir=self.cache_dir)

    def _reader(self, loaded: LoadedExtractor, images: Tensor) -> FeatureReader:
        device = torch.device(self.device)
        return FeatureReader(loaded, device, tuple(images.shape[2:]), self.batch_size, self.progress)

    def _read(self, loaded: LoadedExtractor, images: Tensor) -> tuple[Tensor, ...]:
        check_uint8(images, "images")
        return self._reader(loaded, images).read(batches_of(images, self.batch_size), len(images), "Features")

    def _provenance(self, sets: tuple[SampleSet, SampleSet], loaded: LoadedExtractor | None) -> dict[str, Any]:
        about: dict[str, Any] = {"extractor": self._features(sets[0])[0], "torch_fidelity": version("torch-fidelity")}
        if loaded:
            about |= {"weights": str(loaded.weights), "weights_sha256": loaded.weights_sha256}
        for name, each in zip(("generated", "reference"), sets, strict=True):
            about[name] = {"name": each.name, "count": _count(each), **each.about}
            if each.statistics is not None:
                about[name]["statistics"] = dict(each.statistics_about) or "mu and sigma of others"
        counts = [len(each.images) for each in sets if each.images is not None]
        if sets[0].images is not None and loaded and loaded.spec.logit_layer:
            about["is_splits"] = num_splits(counts[0])
        if len(counts) == 2:
            about["kid"] = {"subsets": KID_SUBSETS, "subset_size": kid_subset_size(*counts)}
            about["precision_recall"] = {
                "most_of_each": MANIFOLD_LIMIT,
                "neighbours": NEIGHBOURS,
                "density_neighbours": DENSITY_NEIGHBOURS,
            }
        return about


def _count(samples: SampleSet) -> int | None:
    """The number of images behind the Fréchet distance, None if a file of others doesn't tell."""
    if samples.statistics is not None:
        return samples.statistics_about.get("num_images")
    return None if samples.images is None else len(samples.images)


def _notes(sets: tuple[SampleSet, SampleSet]) -> list[str]:
    notes = []
    for each in sets:
        if each.statistics is not None and not each.statistics_about:
            notes.append(
                f"{each.name} doesn't tell its extractor, resize, image size or count; they are taken as ours because "
                "its features are as many"
            )
        if each.statistics is not None and each.images is not None:
            notes.append(f"the Fréchet distance uses mu and sigma in {each.name}, the other scores its images")
    return notes


def _check_same(key: str, sets: tuple[SampleSet, SampleSet], loaded: str | None) -> None:
    """MetricError if what is known of both sets differs."""
    known: dict[str, Any] = {} if loaded is None else {"the extractor": loaded}
    for each in sets:
        if key in each.statistics_about:
            known[each.name] = each.statistics_about[key]
        elif key == "image_size" and each.images is not None:
            known[each.name] = list(each.images.shape[2:])
    if len({str(value) for value in known.values()}) > 1:
        told = ", ".join(f"{value} of {name}" for name, value in known.items())
        raise MetricError(
            f"{key} differs: {told}. A distance would measure that as well. "
            + ("Give --image_size, which resizes images" if key == "image_size" else "Make the statistics again")
        )
