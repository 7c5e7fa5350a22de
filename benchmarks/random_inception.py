"""A file with random Inception weights: right to compare speed and arithmetic with, no FID comes from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from cs_gan.metrics import inception


class _Unloaded(FeatureExtractorInceptionV3):  # type: ignore[misc]
    def load_state_dict(self, *args: object, **kwargs: object) -> None:
        """Keep the initial weights."""


def write_random_weights(path: Path) -> Path:
    """Weights of torch-fidelity's network at which features have an ordinary size, as those of trained weights."""
    torch.manual_seed(0)
    torch.save({}, path)  # its constructor reads a file
    network = _Unloaded("inception-v3-compat", ["2048"], feature_extractor_weights_path=path)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 1.0, 0.3)  # around 0, rounding would grow from layer to layer
    smooth = nn.functional.interpolate(torch.rand(8, 3, 6, 6), size=32, mode="bilinear")
    with torch.no_grad():
        network.train()((smooth * 255).to(torch.uint8))  # batch norm's running statistics
    torch.save(network.state_dict(), path)
    return path


@contextmanager
def random_weights() -> Iterator[Path]:
    """A context in which the extractor ``inception`` uses the file that is its value."""
    with TemporaryDirectory() as folder:
        path = write_random_weights(Path(folder, inception.FILE_NAME))
        with patch.object(inception, "locate_weights", lambda _weights: path):
            yield path
