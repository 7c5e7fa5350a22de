"""The feature extractors by name, and the correct name of every score made with each.

A distance is called FID only if the features are those that define FID. All extractors are in torch-fidelity's
registry, so its own ``calculate_metrics(feature_extractor="cs-gan-efficientnet-lite0", ...)`` works as well.

KID is the kernel distance over Inception's features, so for other extractors the name contains the extractor. Precision
and recall always contain it: torch-fidelity uses VGG16's features for them by default, we use the extractor's own.
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
        distance: name of the Fréchet distance over its features.
        inception_score: name of exp(E KL(p(y|x) || p(y))) over its classes; None if it has no classes.
        kernel_distance: name of the polynomial kernel's MMD over its features.
        precision: name of the share of generated images on the real ones' manifold.
        recall: name of the share of real images on the generated ones' manifold.
        density: name of the mean number of real images' neighbourhoods around a generated one.
        coverage: name of the share of real images with a generated one in their neighbourhood.
        feature_layer: the layer the distances, precision and recall use.
        logit_layer: the layer the Inception-Score-like score uses, or None.
        num_features: the width of ``feature_layer``.
        locate: (explicit weights, cache folder) -> the weight file.
    """

    name: str
    registered_name: str
    distance: str
    inception_score: str | None
    kernel_distance: str
    precision: str
    recall: str
    density: str
    coverage: str
    feature_layer: str
    logit_layer: str | None
    num_features: int
    locate: Callable[[Path | None, Path], Path]


def _explicit(weights: Path) -> Path:
    if not weights.is_file():
        raise MetricError(f"the extractor's weights {weights} don't exist. Leave `weights` out for the default")
    return weights


def _locate_inception(weights: Path | None, cache_dir: Path) -> Path:
    return inception.locate_weights(weights)


def _locate_lite0(weights: Path | None, cache_dir: Path) -> Path:
    return _explicit(weights) if weights else lite0.locate_weights()


def _locate_dinov2(weights: Path | None, cache_dir: Path) -> Path:
    return dinov2.locate_weights(weights)


def _locate_digits(weights: Path | None, cache_dir: Path) -> Path:
    return _explicit(weights) if weights else digits.locate_weights(cache_dir)


_SPECS = (
    ExtractorSpec(
        name="inception",
        registered_name="inception-v3-compat",
        distance="FID",
        inception_score="IS",
        kernel_distance="KID",
        precision="precision, Inception",
        recall="recall, Inception",
        density="density, Inception",
        coverage="coverage, Inception",
        feature_layer="2048",
        logit_layer="logits_unbiased",
        num_features=2048,
        locate=_locate_inception,
    ),
    ExtractorSpec(
        name="efficientnet_lite0",
        registered_name="cs-gan-efficientnet-lite0",
        distance="FD, EfficientNet-Lite0",
        inception_score="IS, EfficientNet-Lite0",
        kernel_distance="KID, EfficientNet-Lite0",
        precision="precision, EfficientNet-Lite0",
        recall="recall, EfficientNet-Lite0",
        density="density, EfficientNet-Lite0",
        coverage="coverage, EfficientNet-Lite0",
        feature_layer="1280",
        logit_layer="logits",
        num_features=lite0.HEAD,
        locate=_locate_lite0,
    ),
    ExtractorSpec(
        name="digits",
        registered_name="cs-gan-digits",
        distance="FD, digits classifier",
        inception_score="IS, digits classifier",
        kernel_distance="KID, digits classifier",
        precision="precision, digits classifier",
        recall="recall, digits classifier",
        density="density, digits classifier",
        coverage="coverage, digits classifier",
        feature_layer="64",
        logit_layer="logits",
        num_features=digits.FEATURES,
        locate=_locate_digits,
    ),
    ExtractorSpec(
        name="dinov2",
        registered_name="cs-gan-dinov2-vit-l-14",
        distance="FD, DINOv2 ViT-L/14",
        inception_score=None,
        kernel_distance="KID, DINOv2 ViT-L/14",
        precision="precision, DINOv2 ViT-L/14",
        recall="recall, DINOv2 ViT-L/14",
        density="density, DINOv2 ViT-L/14",
        coverage="coverage, DINOv2 ViT-L/14",
        feature_layer="dinov2",
        logit_layer=None,
        num_features=dinov2.FEATURES,
        locate=_locate_dinov2,
    ),
)
EXTRACTORS = MappingProxyType({spec.name: spec for spec in _SPECS})

for _name, _cls in (
    ("cs-gan-efficientnet-lite0", lite0.EfficientNetLite0Extractor),
    ("cs-gan-digits", digits.DigitsExtractor),
    ("cs-gan-dinov2-vit-l-14", dinov2.DinoV2Extractor),
):
    if (
        _name not in FEATURE_EXTRACTORS_REGISTRY
    ):  # torch-fidelity raises an error on a second registration, for example on a reload
        register_feature_extractor(_name, _cls)


@dataclass(frozen=True)
class LoadedExtractor:
    """An extractor ready to use: module returning features and, if it has them, logits; the sha256 of its weights."""

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
    """Build the extractor ``name`` in fp32 and channels_last on ``device``. The global RNG does not change.

    Raises:
        MetricError: an unknown name, or weights that are missing, damaged or of another network.
    """
    if name not in EXTRACTORS:
        raise MetricError(f"there is no extractor {name!r}; choose one of {', '.join(EXTRACTORS)}")
    spec = EXTRACTORS[name]
    path = spec.locate(Path(weights) if weights else None, cache_dir or default_cache_dir())
    cls: Any = FEATURE_EXTRACTORS_REGISTRY[spec.registered_name]
    with isolated_rng(0, torch.device("cpu")):  # building a network draws its initial weights
        module = cls(
            spec.registered_name,
            [layer for layer in (spec.feature_layer, spec.logit_layer) if layer],
            feature_extractor_weights_path=str(path),
        )
    module.requires_grad_(False)
    module.eval().to(device=device, memory_format=torch.channels_last)
    return LoadedExtractor(spec, module, path, file_sha256(path))
