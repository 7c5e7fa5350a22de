"""DINOv2's ViT-L/14 as a feature extractor. Its weights are fetched on first use, its code is the user's to get.

torch-fidelity's own ``dinov2-vit-l-14`` uses torch.hub, which accesses the network even if everything is cached, and
may ask a question at the terminal. This one takes the same network and weights from the same places. Everything else,
such as resize, scaling and output, is torch-fidelity's class.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

from cs_gan.errors import MetricError
from cs_gan.metrics.fetch import FetchError, fetch

FEATURES = 1024
HUB_NAME = "dinov2_vitl14"
FILE_NAME = f"{HUB_NAME}_pretrain.pth"
URL = f"https://dl.fbaipublicfiles.com/dinov2/{HUB_NAME}/{FILE_NAME}"
REPOSITORY = "https://github.com/facebookresearch/dinov2"


def locate_weights(weights: Path | None = None) -> Path:
    """The weight file: ``weights``, or the one in ``$TORCH_HOME/hub/checkpoints``, fetched on first use.

    The network's code must be there first, because it is run: nobody but the user decides that. No sha256 of the
    weights is published, so a fetched file is checked by its length, and loaded without running anything in it.

    Raises:
        MetricError: the network's code is missing, or the file is and can't be fetched.
    """
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / FILE_NAME
    by_hand = (
        f"Download {URL} and put it at {path} (or give its path: --metrics.weights). Without it, "
        "--metrics.extractor=efficientnet_lite0 works offline, under its own name."
    )
    missing = "" if path.is_file() else f"FD on DINOv2 needs the weights {FILE_NAME}, and {path} doesn't exist."
    if not (code_folder() / "hubconf.py").is_file():
        raise MetricError(
            f"DINOv2 needs the network's code, and {code_folder()} holds no hubconf.py. "
            f"`git clone {REPOSITORY} {code_folder()}`. {missing and f'{missing} {by_hand}'}".rstrip()
        )
    if missing and weights is not None:
        raise MetricError(f"{missing} {by_hand}")
    if missing:
        try:
            fetch(URL, path, None)
        except FetchError as error:
            raise MetricError(f"{missing} {error} {by_hand}") from error
    return path


def code_folder() -> Path:
    """The folder where torch.hub stores the repository."""
    return Path(torch.hub.get_dir()) / "facebookresearch_dinov2_main"


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
