"""DINOv2's ViT-L/14 as a feature extractor. Its weights are fetched on first use, its code is the user's to get.

torch-fidelity's own ``dinov2-vit-l-14`` uses torch.hub, which accesses the network even if everything is cached, and
may ask a question at the terminal. This one takes the same network and weights from the same places. Everything else,
such as resize, scaling and output, is torch-fidelity's class.
"""

from __future__ import annotations

from pathlib import Path

import torch

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
