"""A digit classifier as a feature extractor: trained in seconds, no download, for grey toy data.

It is trained on scikit-learn's 8 x 8 digits, resized to 16 x 16 grey images. Its 64-wide penultimate layer gives the
features for distances. Its scores measure how digit-like images are. They mean nothing for photographs and can't be
compared with published numbers. The last bits of the weights depend on the machine. Compare scores only if the sha256
of the weights, in every score's provenance, is the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cs_gan.digits import read_digits
from cs_gan.errors import MetricError
from cs_gan.metrics.cache import Arrays, default_cache_dir, key_digest, load_or_compute
from cs_gan.metrics.classifier import ClassifierExtractor
from cs_gan.metrics.images import batches_of
from cs_gan.randomness import derive_seed, stream
from cs_gan.restore import isolated_rng

IMAGE_SIZE = 16
FEATURES = 64
MIN_ACCURACY = 0.95
# Everything that the weights depend on. The name of the cache file is a digest of it.
RECIPE: dict[str, Any] = {"version": 1, "epochs": 12, "batch": 64, "lr": 2e-3, "shift": 1, "holdout": 0.2}


class DigitsNetwork(nn.Module):
    """Three convolutions and a 64-wide layer, 26 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 4 * 4, FEATURES), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(FEATURES, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B, 1, 16, 16) in [-1, 1] -> (B, 64), (B, 10)
        """Penultimate features and class logits."""
        features = self.body(x)
        return features, self.head(features)


def preprocess(images: Tensor) -> Tensor:  # uint8 (B, 3, H, W) -> (B, 1, 16, 16) in [-1, 1]
    """Luma (Rec. 601), bilinear resize with antialiasing, scale."""
    luma = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    grey = (images.float() * luma).sum(1, keepdim=True)
    grey = F.interpolate(grey, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False, antialias=True)
    return grey / 127.5 - 1


def load_digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits: uint8 (1797, 3, 8, 8) in [0, 255] and int64 labels (1797,).

    Raises:
        MetricError: scikit-learn isn't installed.
    """
    try:
        grey, labels = read_digits()
    except ImportError as error:
        raise MetricError(
            "the extractor 'digits' is trained on scikit-learn's digits: pip install \"cs-gan[gan]\""
        ) from error
    return torch.from_numpy(grey)[:, None].repeat(1, 3, 1, 1), torch.from_numpy(labels)


def locate_weights(cache_dir: Path | None = None) -> Path:
    """The cached weights. If there are none, they are trained first.

    Raises:
        MetricError: the trained network misses the held-out accuracy, or the cache folder can't be written.
    """
    path = (cache_dir or default_cache_dir()) / f"digits-{key_digest(RECIPE)}.safetensors"
    load_or_compute(path, train)
    if not path.is_file():
        raise MetricError(
            f"the digits classifier can't be stored at {path}; set XDG_CACHE_HOME to a folder that can be written"
        )
    return path


def train() -> Arrays:
    """Train the classifier on four fifths of the digits and test it on the rest.

    Raises:
        MetricError: held-out accuracy below 0.95.
    """
    images, labels = load_digits()
    order = torch.randperm(len(images), generator=stream("digits", "split"))
    held_out = int(len(images) * RECIPE["holdout"])
    test, fit = order[:held_out], order[held_out:]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the order of a sum depends on the thread count
    try:
        with isolated_rng(derive_seed("digits", "weights"), torch.device("cpu")), torch.enable_grad():
            network = _fit(preprocess(images[fit]), labels[fit])
    finally:
        torch.set_num_threads(threads)
    with torch.no_grad():
        predicted = network(preprocess(images[test]))[1].argmax(1)
    accuracy = (predicted == labels[test]).double().mean().item()
    if not accuracy >= MIN_ACCURACY:
        raise MetricError(
            f"the digits classifier reached {accuracy:.3f} on held-out digits, expected at least {MIN_ACCURACY}; "
            "scores from it would be meaningless. Please report this with your torch version"
        )
    weights: Arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return weights


def _fit(x: Tensor, y: Tensor) -> DigitsNetwork:  # (n, 1, 16, 16), (n,)
    network = DigitsNetwork()
    optimizer = torch.optim.Adam(network.parameters(), lr=RECIPE["lr"])
    shift = RECIPE["shift"]
    for _ in range(RECIPE["epochs"]):
        for index in batches_of(torch.randperm(len(x)), RECIPE["batch"]):
            dy, dx = torch.randint(0, 2 * shift + 1, (2,)).tolist()
            padded = F.pad(x[index], [shift] * 4, value=-1.0)  # black
            logits = network(padded[:, :, dy : dy + IMAGE_SIZE, dx : dx + IMAGE_SIZE])[1]
            loss = F.cross_entropy(logits, y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


class DigitsExtractor(ClassifierExtractor):
    """torch-fidelity extractor: uint8 RGB images -> ``"64"`` penultimate features and ``"logits"``."""

    title = "the digits classifier"
    layer = "64"
    locate = staticmethod(locate_weights)

    @staticmethod
    def load(path: Path) -> DigitsNetwork:
        """The network with these weights."""
        network = DigitsNetwork()
        try:
            network.load_state_dict(load_file(path))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise MetricError(f"{path} doesn't hold the digits classifier's weights: {error}") from error
        return network

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:  # uint8 (B, 3, H, W) -> (B, 64), (B, 10)
        """Features and logits of images of any size."""
        features, logits = self.network(preprocess(images))
        return features, logits
