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
from cs_gan.files import file_sha256
from cs_gan.metrics import digits, dinov2, inception, lite0
from cs_gan.metrics.cache import default_cache_dir
from cs_gan.metrics.folded_inception import FoldedInception
from cs_gan.restore import isolated_rng


@dataclass(frozen=True)
class ExtractorSpec:
    """One extractor: its names, its layers and how to find its weights.

    Attributes:
        name: the name a user configures.
        registered_name: its name in torch-fidelity's registry.
        label: the extractor in the names of its scores.
        feature_layer: the layer the distances, precision and recall use.
        logit_layer: the layer the Inception-Score-like score uses, or None.
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

    def named(self, score: str) -> str:
        """The full name of FD, IS, KID, precision, recall, density or coverage over its features and classes.

        Only Inception's FID, IS and KID have names without the extractor.
        """
        bare = {"FD": "FID", "IS": "IS", "KID": "KID"} if self.name == "inception" else {}
        return bare.get(score, f"{score}, {self.label}")


def _explicit(weights: Path) -> Path:
    if not weights.is_file():
        raise MetricError(f"the extractor's weights {weights} don't exist. Leave `weights` out for the default")
    return weights


_SPECS = (
    ExtractorSpec(
        "inception", "cs-gan-inception-v3", "Inception", "2048", "logits_unbiased", 2048,
        lambda weights, _: inception.locate_weights(weights),
    ),
    ExtractorSpec(
        "efficientnet_lite0", "cs-gan-efficientnet-lite0", "EfficientNet-Lite0", "1280", "logits", lite0.HEAD,
        lambda weights, _: _explicit(weights) if weights else lite0.locate_weights(),
    ),
    ExtractorSpec(
        "digits", "cs-gan-digits", "digits classifier", "64", "logits", digits.FEATURES,
        lambda weights, cache_dir: _explicit(weights) if weights else digits.locate_weights(cache_dir),
    ),
    ExtractorSpec(
        "dinov2", "cs-gan-dinov2-vit-l-14", "DINOv2 ViT-L/14", "dinov2", None, dinov2.FEATURES,
        lambda weights, _: dinov2.locate_weights(weights),
    ),
)  # fmt: skip
EXTRACTORS = MappingProxyType({spec.name: spec for spec in _SPECS})

for _name, _cls in (
    ("cs-gan-inception-v3", FoldedInception),
    ("cs-gan-efficientnet-lite0", lite0.EfficientNetLite0Extractor),
    ("cs-gan-digits", digits.DigitsExtractor),
    ("cs-gan-dinov2-vit-l-14", dinov2.DinoV2Extractor),
):
    # torch-fidelity raises an error on a second registration, for example on a reload.
    if _name not in FEATURE_EXTRACTORS_REGISTRY:
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
