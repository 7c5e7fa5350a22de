"""Residual WGAN-GP networks for 32x32 and 64x64 images, with the published parameter counts.

At the default widths: paper32 has 1,204,483 (generator) and 1,053,825 (critic) parameters, paper64 8,540,483
and 7,491,841, mimicry32 4,276,739 and 1,053,825.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Critic, Generator
from models.blocks import (
    RELU_GAIN,
    CriticBlock,
    CriticStemBlock,
    GeneratorBlock,
    Upsampling,
    conv3x3,
    xavier,
)


class GlobalMeanHead(nn.Module):
    """ReLU, mean over the pixels, Linear: (B, C, H, W) -> (B, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = xavier(nn.Linear(channels, 1))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, 1)
        """One score for each image."""
        score: Tensor = self.linear(F.relu(x).mean(dim=(2, 3)))
        return score


def latent_stem(latent_dim: int, channels: int) -> nn.Sequential:  # (B, latent_dim) -> (B, channels, 4, 4)
    """The first layer of a residual generator."""
    return nn.Sequential(xavier(nn.Linear(latent_dim, channels * 16)), nn.Unflatten(1, (channels, 4, 4)))


def image_head(width: int, channels: int, gain: float) -> nn.Sequential:  # (B, width, R, R) -> (B, channels, R, R)
    """The last layers of a residual generator."""
    return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), conv3x3(width, channels, gain=gain), nn.Tanh())


class ResNetGenerator32(Generator):
    """The CIFAR-10 generator: one width throughout.

    Parts, for width w (128) and channels c (3):
        stem      Linear                             (B, latent_dim) -> (B, w, 4, 4)
        blocks.0  GeneratorBlock                     -> (B, w, 8, 8)
        blocks.1  GeneratorBlock                     -> (B, w, 16, 16)
        blocks.2  GeneratorBlock                     -> (B, w, 32, 32)
        head      BN, ReLU, conv3x3, tanh            -> (B, c, 32, 32)

    Source: Gulrajani et al. 2017, gan_cifar_resnet (width 128, nearest upsampling); torch-mimicry's
    `ResNetGenerator32` for WGAN-GP is this net with width 256 and bilinear upsampling.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        latent_dim: int = 128,
        width: int = 128,
        upsampling: Upsampling = "nearest",
    ) -> None:
        super().__init__(
            latent_stem(latent_dim, width),
            nn.Sequential(*(GeneratorBlock(width, width, upsampling=upsampling) for _ in range(3))),
            image_head(width, channels, gain=1.0),
            latent_dim=latent_dim,
            image_shape=(channels, 32, 32),
        )


class ResNetCritic32(Critic):
    """The CIFAR-10 critic: one width throughout, no normalisation.

    Parts, for width w (128) and channels c (3):
        stem      identity                           (B, c, 32, 32)
        blocks.0  CriticStemBlock                    -> (B, w, 16, 16)
        blocks.1  CriticBlock, downsampling          -> (B, w, 8, 8)
        blocks.2  CriticBlock                        -> (B, w, 8, 8)
        blocks.3  CriticBlock                        -> (B, w, 8, 8)
        head      ReLU, global mean, Linear          -> (B, 1)

    Source: Gulrajani et al. 2017, gan_cifar_resnet; torch-mimicry's WGAN-GP critic has the same parts.
    """

    def __init__(self, *, channels: int = 3, width: int = 128) -> None:
        super().__init__(
            nn.Identity(),
            nn.Sequential(
                CriticStemBlock(channels, width),
                CriticBlock(width, width, downsample=True),
                CriticBlock(width, width, downsample=False),
                CriticBlock(width, width, downsample=False),
            ),
            GlobalMeanHead(width),
            image_shape=(channels, 32, 32),
        )


class ResNetGenerator64(Generator):
    """The 64x64 generator.

    Parts, for width w (64) and channels c (3):
        stem      Linear                             (B, latent_dim) -> (B, 8w, 4, 4)
        blocks.0  GeneratorBlock                     -> (B, 8w, 8, 8)
        blocks.1  GeneratorBlock                     -> (B, 4w, 16, 16)
        blocks.2  GeneratorBlock                     -> (B, 2w, 32, 32)
        blocks.3  GeneratorBlock                     -> (B, w, 64, 64)
        head      BN, ReLU, conv3x3, tanh            -> (B, c, 64, 64)

    Source: Gulrajani et al. 2017, gan_64x64, `GoodGenerator`.
    """

    def __init__(self, *, channels: int = 3, latent_dim: int = 128, width: int = 64) -> None:
        widths = [8 * width, 8 * width, 4 * width, 2 * width, width]
        super().__init__(
            latent_stem(latent_dim, widths[0]),
            nn.Sequential(*(GeneratorBlock(i, o, first_bias=False) for i, o in pairwise(widths))),
            image_head(width, channels, gain=RELU_GAIN),
            latent_dim=latent_dim,
            image_shape=(channels, 64, 64),
        )


class ResNetCritic64(Critic):
    """The 64x64 critic, with layer norm.

    Parts, for width w (64) and channels c (3):
        stem      conv3x3                            (B, c, 64, 64) -> (B, w, 64, 64)
        blocks.0  CriticBlock, LN, downsampling      -> (B, 2w, 32, 32)
        blocks.1  CriticBlock, LN, downsampling      -> (B, 4w, 16, 16)
        blocks.2  CriticBlock, LN, downsampling      -> (B, 8w, 8, 8)
        blocks.3  CriticBlock, LN, downsampling      -> (B, 8w, 4, 4)
        head      flatten, Linear                    -> (B, 1)

    Source: Gulrajani et al. 2017, gan_64x64, `GoodDiscriminator`.
    """

    def __init__(self, *, channels: int = 3, width: int = 64) -> None:
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        super().__init__(
            conv3x3(channels, width, gain=1.0),
            nn.Sequential(
                *(CriticBlock(i, o, downsample=True, layer_norm=True, first_bias=False) for i, o in pairwise(widths))
            ),
            nn.Sequential(nn.Flatten(), xavier(nn.Linear(widths[-1] * 16, 1))),
            image_shape=(channels, 64, 64),
        )
