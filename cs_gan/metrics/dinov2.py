"""Where torch.hub keeps DINOv2, whose features torch-fidelity reads."""

from __future__ import annotations

from pathlib import Path

import torch

from cs_gan.errors import MetricError

REGISTERED = "dinov2-vit-l-14"
FEATURES = 1024
REPOSITORY = "facebookresearch_dinov2_main"
FILE_NAME = "dinov2_vitl14_pretrain.pth"
URL = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/{FILE_NAME}"


def locate_weights(weights: Path | None = None) -> Path:
    """The weight file in ``$TORCH_HOME/hub/checkpoints``, beside a copy of DINOv2's repository.

    Both must be there: torch.hub would download them without asking, and what it runs is that repository's code. No
    hash is published, so none is checked; the provenance of every score has the file's.

    Raises:
        MetricError: one of them is missing, or a path is given, which torch-fidelity doesn't take.
    """
    hub = Path(torch.hub.get_dir())
    path, repository = hub / "checkpoints" / FILE_NAME, hub / REPOSITORY
    if weights is not None:
        raise MetricError(f"--metrics.weights={weights}: torch-fidelity reads DINOv2 from {path} only. Put it there.")
    missing = [str(place) for place, there in ((path, path.is_file()), (repository, repository.is_dir())) if not there]
    if missing:
        raise MetricError(
            f"DINOv2 needs {' and '.join(missing)}. Download {URL} and unpack "
            "https://github.com/facebookresearch/dinov2 (branch main) there; or, with a network, run once: "
            "python -c \"import torch; torch.hub.load('facebookresearch/dinov2', 'dinov2_vitl14')\". Without them, "
            "--metrics.extractor=efficientnet_lite0 works offline, under its own name."
        )
    return path
