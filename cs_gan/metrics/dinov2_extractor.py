"""The extractor of ``dinov2.py``, apart from it because torch-fidelity's import takes as long as torch's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

from cs_gan.errors import MetricError
from cs_gan.metrics.dinov2 import HUB_NAME, REPOSITORY, URL, code_folder, locate_weights


class DinoV2Extractor(FeatureExtractorDinoV2):  # type: ignore[misc]
    """torch-fidelity's extractor, uint8 RGB images -> ``"dinov2"`` (B, 1024), built from local files.

    Args:
        name: the name it is registered under.
        features_list: ``["dinov2"]``.
        feature_extractor_weights_path: the weight file; default: that of :func:`locate_weights`.
        **kwargs: torch-fidelity's other settings, which are ignored.

    Raises:
        MetricError: if files are missing, or the weights are not for this network.
    """

    def __init__(
        self,
        name: str,
        features_list: Sequence[str],
        feature_extractor_weights_path: str | Path | None = None,
        **kwargs: object,
    ) -> None:
        FeatureExtractorBase.__init__(self, name, features_list)  # not that of its class, which would use torch.hub
        path = locate_weights(Path(feature_extractor_weights_path) if feature_extractor_weights_path else None)
        self.feature_extractor_internal_dtype = torch.float32
        os.environ.setdefault("XFORMERS_DISABLED", "1")  # as torch-fidelity does: the plain attention, on any device
        try:
            self.model = torch.hub.load(str(code_folder()), HUB_NAME, source="local", pretrained=False)
            self.model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # the repository's code, torch's unpickler, load_state_dict
            raise MetricError(
                f"{path} doesn't hold DINOv2's weights, or {code_folder()} not its network "
                f"({type(error).__name__}: {error}). Get both again: {URL}, {REPOSITORY}."
            ) from error
        self.requires_grad_(False)
        self.eval()
