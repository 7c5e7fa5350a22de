from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cs_gan.metrics import Evaluator, Scores, digits


class ToyGenerator(nn.Module):
    """Latents to images, with every kind of state that an evaluation could disturb."""

    def __init__(self, channels: int = 1, size: int = 8, latent_dim: int = 4) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.shape = (channels, size, size)
        self.linear = nn.Linear(latent_dim, channels * size * size)
        self.norm = nn.BatchNorm1d(channels * size * size)
        self.dropout = nn.Dropout(0.5)

    def forward(self, z: Tensor) -> Tensor:
        noise = 0.1 * torch.randn_like(z)  # from the global RNG, as StyleGAN's noise inputs are
        return torch.tanh(self.dropout(self.norm(self.linear(z + noise)))).view(-1, *self.shape)


class Replay(nn.Module):
    """A generator that returns stored images one after another, to score images that exist already."""

    latent_dim = 1

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images, self.position, self.batches = images, 0, 0

    def forward(self, z: Tensor) -> Tensor:
        batch = self.images[self.position : self.position + len(z)]
        self.position, self.batches = self.position + len(z), self.batches + 1
        return batch / 127.5 - 1  # to_uint8 gives the same pixels again


ScoreImages = Callable[[Tensor], Scores]


@pytest.fixture
def toy_generator() -> ToyGenerator:
    torch.manual_seed(1)
    return ToyGenerator()


@pytest.fixture(scope="session")
def real_digits() -> Tensor:  # uint8 (1797, 1, 8, 8), in a fixed random order
    images = digits.load_digits()[0][:, :1]
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]


@pytest.fixture(scope="session")
def evaluator(real_digits: Tensor, cache_dir: Path) -> Evaluator:
    about = {"data": "digits", "split": "first 900"}
    return Evaluator("digits", real_digits[:900], reference_about=about, num_samples=200, cache_dir=cache_dir)


@pytest.fixture(scope="session")
def score_images(evaluator: Evaluator) -> ScoreImages:
    return lambda images: evaluator(Replay(images), num_samples=len(images))
