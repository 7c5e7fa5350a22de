"""Find or fetch torch-fidelity's Inception-v3 weights, and check that they are the ones that define FID."""

from __future__ import annotations

from pathlib import Path

import torch
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

from cs_gan.errors import MetricError
from cs_gan.files import file_sha256
from cs_gan.metrics.fetch import FetchError, fetch

FILE_NAME = str(URL_INCEPTION_V3).rsplit("/", 1)[1]
# The TensorFlow 2015-12-05 graph as converted for pytorch-fid and torch-fidelity (the file name ends in its start).
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def locate_weights(weights: Path | None = None) -> Path:
    """The verified weight file: ``weights``, or the one in ``$TORCH_HOME/hub/checkpoints``, fetched on first use.

    torch-fidelity unpickles this file without a check. A damaged or wrong file would make every FID wrong, so the
    sha256 is checked here first.

    Raises:
        MetricError: the file is missing and can't be fetched, or isn't the file that defines FID.
    """
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / FILE_NAME
    if not path.is_file():
        missing = f"FID needs the Inception weights {FILE_NAME}, and {path} doesn't exist."
        if weights is not None:  # a path that the user typed is read, never written
            raise MetricError(f"{missing} {_advice(path)}")
        try:
            fetch(URL_INCEPTION_V3, path, SHA256)
        except FetchError as error:
            raise MetricError(f"{missing} {error} {_advice(path)}") from error
    digest = file_sha256(path)
    if digest != SHA256:
        raise MetricError(
            f"{path} has sha256 {digest}, expected {SHA256}: it is damaged or another network, and a distance "
            f"measured with it wouldn't be FID. Delete it. {_advice(path)}"
        )
    return path


def _advice(path: Path) -> str:
    return (
        f"Download {URL_INCEPTION_V3} and put it at {path} (or give its path: --metrics.weights). "
        "Without it, --metrics.extractor=efficientnet_lite0 works offline, under "
        "its own name."
    )
