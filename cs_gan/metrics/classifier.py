"""The common part of our own extractors: features of one layer, logits, and torch-fidelity's interface."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from cs_gan.errors import MetricError


class ClassifierExtractor(nn.Module):
    """An extractor for torch-fidelity that returns a classifier's penultimate features and its logits.

    It isn't derived from torch-fidelity's base, which is slow to import; ``register_extractors`` adds it.

    Args:
        name: the name it is registered under.
        features_list: which of the two outputs to return, in this order.
        feature_extractor_weights_path: a weight file; default: that of :meth:`locate`.
        **kwargs: torch-fidelity's other settings, which are ignored.

    Attributes:
        title: its name in error messages.
        layer: torch-fidelity's name of the features, which is their number.

    Raises:
        MetricError: weights that are missing, damaged or of another network.
    """

    title: ClassVar[str]
    layer: ClassVar[str]

    def __init__(
        self,
        name: str,
        features_list: Sequence[str],
        feature_extractor_weights_path: str | Path | None = None,
        **kwargs: object,
    ) -> None:
        nn.Module.__init__(self)  # not that of torch-fidelity's class, which a registered extractor has too
        self.name, self.features_list = name, list(features_list)
        path = Path(feature_extractor_weights_path) if feature_extractor_weights_path else self.locate()
        self.network = self.load(path)
        self.requires_grad_(False)
        self.eval()

    @staticmethod
    @abstractmethod
    def locate() -> Path:
        """The default weight file."""

    @staticmethod
    @abstractmethod
    def load(path: Path) -> nn.Module:
        """The network with these weights."""

    @abstractmethod
    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:  # uint8 (B, 3, H, W) -> (B, d), (B, classes)
        """Features and logits of images of any size."""

    @classmethod
    def get_provided_features_list(cls) -> tuple[str, ...]:
        """The names of the two outputs."""
        return cls.layer, "logits"

    @classmethod
    def get_default_feature_layer_for_metric(cls, metric: str) -> str:
        """``"logits"`` for the Inception-Score-like score, the features for every distance."""
        return {"isc": "logits", "fid": cls.layer, "kid": cls.layer, "prc": cls.layer}[metric]

    @staticmethod
    def can_be_compiled() -> bool:
        """Compilation isn't tested, so it isn't supported."""
        return False

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The requested features of images of any size.

        Raises:
            MetricError: if the images are not uint8 (B, 3, H, W).
        """
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
            raise MetricError(f"{self.title} got {images.dtype} {tuple(images.shape)}; it takes uint8 (B, 3, H, W)")
        provided = dict(zip(self.get_provided_features_list(), self.outputs(images), strict=True))
        return tuple(provided[layer] for layer in self.features_list)
