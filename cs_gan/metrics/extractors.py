"""The feature extractors by name, and the honest name of every score made with each.

A distance is called FID only where the features are those that define FID. All are in torch-fidelity's
registry, so its own ``calculate_metrics(feature_extractor="cs-gan-efficientnet-lite0", ...)`` works as well.

KID is the kernel distance over Inception's features, so the others' names carry their extractor. Precision and
recall always do: torch-fidelity takes VGG16's features for them by default, and these are the extractor's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

from cs_gan.errors import MetricError
from cs_gan.metrics import digits, dinov2, inception, lite0
from cs_gan.metrics.cache import default_cache_dir, file_sha256
from cs_gan.metrics.state import isolated_rng


@dataclass(frozen=True)
class ExtractorSpec:
    """One extractor: its names, its layers and how to find its weights.

    Attributes:
        name: the name a user configures.
        registered_name: its name in torch-fidelity's registry.
        label: the network, as the names of scores have it.
        feature_layer: the layer the distances, precision, recall, density and coverage use.
        logit_layer: the layer the Inception-Score-like score uses; None where the network has no classes.
        num_features: the width of ``feature_layer``.
        locate: (explicit weights, cache folder) -> the weight file.
    """

    name: str
    registered_name: str
    label: str
    feature_layer: str
    logit_layer: str | None
    num_features: int
    locate: Callable[[Path | None, Path], Path]

    @property
    def distance(self) -> str:
        """What the Fréchet distance over its features is called."""
        return self._known("FID", "FD")

    @property
    def inception_score(self) -> str:
        """What exp(E KL(p(y|x) || p(y))) over its classes is called."""
        return self._known("IS", "IS")

    @property
    def kernel_distance(self) -> str:
        """What the polynomial kernel's MMD over its features is called."""
        return self._known("KID", "KID")

    def on_manifolds(self, kind: str) -> str:
        """What precision, recall, density or coverage over its features is called."""
        return f"{kind}, {self.label}"

    def _known(self, of_inception: str, of_others: str) -> str:
        return of_inception if self.name == "inception" else f"{of_others}, {self.label}"


def _explicit(weights: Path) -> Path:
    if not weights.is_file():
        raise MetricError(f"the extractor's weights {weights} don't exist; leave `weights` out for the default")
    return weights


def _locate_inception(weights: Path | None, cache_dir: Path) -> Path:
    return inception.locate_weights(weights)


def _locate_lite0(weights: Path | None, cache_dir: Path) -> Path:
    return _explicit(weights) if weights else lite0.locate_weights()


def _locate_digits(weights: Path | None, cache_dir: Path) -> Path:
    return _explicit(weights) if weights else digits.locate_weights(cache_dir)


def _locate_dinov2(weights: Path | None, cache_dir: Path) -> Path:
    return dinov2.locate_weights(weights)


_SPECS = (
    ExtractorSpec("inception", "inception-v3-compat", "Inception", "2048", "logits_unbiased", 2048, _locate_inception),
    ExtractorSpec(
        "efficientnet_lite0",
        "cs-gan-efficientnet-lite0",
        "EfficientNet-Lite0",
        "1280",
        "logits",
        lite0.HEAD,
        _locate_lite0,
    ),
    ExtractorSpec("digits", "cs-gan-digits", "digits classifier", "64", "logits", digits.FEATURES, _locate_digits),
    ExtractorSpec("dinov2", dinov2.REGISTERED, "DINOv2 ViT-L/14", "dinov2", None, dinov2.FEATURES, _locate_dinov2),
)
EXTRACTORS = MappingProxyType({spec.name: spec for spec in _SPECS})

for _name, _cls in (
    ("cs-gan-efficientnet-lite0", lite0.EfficientNetLite0Extractor),
    ("cs-gan-digits", digits.DigitsExtractor),
):
    if _name not in FEATURE_EXTRACTORS_REGISTRY:  # torch-fidelity refuses a second registration, as on a reload
        register_feature_extractor(_name, _cls)


@dataclass(frozen=True)
class LoadedExtractor:
    """An extractor ready to use: module returning (features, logits) or (features,), and its weights' sha256."""

    spec: ExtractorSpec
    module: nn.Module
    weights: Path
    weights_sha256: str


def load_extractor(
    name: str,
    *,
    device: torch.device | str = "cpu",
    weights: Path | None = None,
    cache_dir: Path | None = None,
) -> LoadedExtractor:
    """Build the extractor ``name`` in fp32 and channels_last on ``device``; the global RNG stays as it was.

    Raises:
        MetricError: an unknown name, or weights that are missing, damaged or of another network.
    """
    if name not in EXTRACTORS:
        raise MetricError(f"there is no extractor {name!r}; choose one of {', '.join(EXTRACTORS)}")
    spec = EXTRACTORS[name]
    path = spec.locate(Path(weights) if weights else None, cache_dir or default_cache_dir())
    cls: Any = FEATURE_EXTRACTORS_REGISTRY[spec.registered_name]
    with isolated_rng(0, torch.device("cpu")):  # building a network draws its initial weights
        # DINOv2 comes from where torch.hub keeps it; torch-fidelity takes no path for it.
        given = {} if spec.name == "dinov2" else {"feature_extractor_weights_path": str(path)}
        layers = [spec.feature_layer] if spec.logit_layer is None else [spec.feature_layer, spec.logit_layer]
        module = cls(spec.registered_name, layers, **given)
    module.requires_grad_(False)
    module.eval().to(device=device, memory_format=torch.channels_last)
    return LoadedExtractor(spec, module, path, file_sha256(path))
