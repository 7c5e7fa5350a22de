"""DINOv2's ViT-L/14 as a feature extractor, from files that the user provides. Nothing is downloaded.

torch-fidelity's own ``dinov2-vit-l-14`` uses torch.hub, which accesses the network even if everything is cached, and
may ask a question at the terminal. This one takes the same network and weights from the same places. Everything else,
such as resize, scaling and output, is torch-fidelity's class.
"""

from __future__ import annotations

from pathlib import Path

import torch

from cs_gan.errors import MetricError

FEATURES = 1024
HUB_NAME = "dinov2_vitl14"
FILE_NAME = f"{HUB_NAME}_pretrain.pth"
URL = f"https://dl.fbaipublicfiles.com/dinov2/{HUB_NAME}/{FILE_NAME}"
REPOSITORY = "https://github.com/facebookresearch/dinov2"


def locate_weights(weights: Path | None = None) -> Path:
    """The weight file: ``weights``, or the one in ``$TORCH_HOME/hub/checkpoints``.

    Raises:
        MetricError: the file or the network's code is missing.
    """
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / FILE_NAME
    if not path.is_file():
        raise MetricError(
            f"FD on DINOv2 needs the weights {FILE_NAME}, and {path} doesn't exist. Download {URL} and put it "
            f"there (or give its path: --metrics.weights), and `git clone {REPOSITORY} {code_folder()}` for the "
            "network's code. Without them, --metrics.extractor=efficientnet_lite0 works offline, under its own name."
        )
    if not (code_folder() / "hubconf.py").is_file():
        raise MetricError(
            f"DINOv2's weights are at {path}, but the network's code isn't: {code_folder()} holds no hubconf.py. "
            f"`git clone {REPOSITORY} {code_folder()}`."
        )
    return path


def code_folder() -> Path:
    """The folder where torch.hub stores the repository."""
    return Path(torch.hub.get_dir()) / "facebookresearch_dinov2_main"
