"""DCGAN networks for 16x16, 32x32 and 64x64 images, for WGAN-GP: batch norm in the generator only."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from models.base import Critic, Generator
from models.blocks import xavier

LEAK = 0.2  # slope of LeakyReLU, from the DCGAN paper


def _normal_(layer: nn.Linear | nn.ConvTranspose2d) -> None:
    # DCGAN's N(0, 0.02) works for the generator. Batch norm follows each of these layers except the last and removes
    # the scale. The last layer then starts in the linear range of tanh.
    nn.init.normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _he_(conv: nn.Conv2d) -> None:
    # Without norm layers the scale matters. With N(0, 0.02) each 4x4 layer would shrink the signal several times.
    # Scores and input gradients would be near 0 at first, and the penalty (|gradient| - 1)^2 would have to increase
    # them. He's standard deviation for a leaky ReLU keeps the mean square of the features constant over the layers.
    nn.init.kaiming_normal_(conv.weight, a=LEAK, nonlinearity="leaky_relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def _up_block(in_channels: int, out_channels: int) -> nn.Sequential:  # (B, in, H, W) -> (B, out, 2H, 2W)
    conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
    _normal_(conv)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


def _down_block(in_channels: int, out_channels: int) -> nn.Sequential:  # (B, in, H, W) -> (B, out, H/2, W/2)
    conv = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)
    _he_(conv)
    return nn.Sequential(conv, nn.LeakyReLU(LEAK))


def _widths(image_size: int, width: int) -> list[int]:
    """Channels at each size from image_size / 2 down to 4: width, 2 width, 4 width, ..."""
    if image_size not in (16, 32, 64):
        raise ValueError(f"DCGAN nets are made for images of 16, 32 or 64 pixels, got image_size={image_size}")
    return [width << level for level in range(image_size.bit_length() - 3)]


class DCGANGenerator(Generator):
    """The DCGAN generator: transposed 4x4 convolutions that double the size, each with batch norm and ReLU.

    Parts at 64x64, for width w (64) and channels c (3):
        stem      Linear, BN, ReLU                   (B, latent_dim) -> (B, 8w, 4, 4)
        blocks.0  ConvTranspose 4x4 /2, BN, ReLU     -> (B, 4w, 8, 8)
        blocks.1  ConvTranspose 4x4 /2, BN, ReLU     -> (B, 2w, 16, 16)
        blocks.2  ConvTranspose 4x4 /2, BN, ReLU     -> (B, w, 32, 32)
        head      ConvTranspose 4x4 /2, tanh         -> (B, c, 64, 64)
    At 32x32 the stem has 4w channels and there are two blocks; at 16x16, 2w channels and one block. The last block
    always has w channels.

    Source: Radford et al. 2016, section 3 and figure 1 (width 128 at 64x64).
    """

    def __init__(self, *, image_size: int, channels: int = 3, latent_dim: int = 128, width: int = 64) -> None:
        widths = _widths(image_size, width)[::-1]
        first = nn.Linear(latent_dim, widths[0] * 16, bias=False)
        last = nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1)
        _normal_(first)
        _normal_(last)
        super().__init__(
            nn.Sequential(first, nn.Unflatten(1, (widths[0], 4, 4)), nn.BatchNorm2d(widths[0]), nn.ReLU()),
            nn.Sequential(*(_up_block(i, o) for i, o in pairwise(widths))),
            nn.Sequential(last, nn.Tanh()),
            latent_dim=latent_dim,
            image_shape=(channels, image_size, image_size),
        )


class DCGANCritic(Critic):
    """The DCGAN critic without batch norm, because the gradient penalty doesn't allow it.

    Parts at 64x64, for width w (64) and channels c (3):
        stem      identity                           (B, c, 64, 64)
        blocks.0  conv 4x4 /2, LeakyReLU(0.2)        -> (B, w, 32, 32)
        blocks.1  conv 4x4 /2, LeakyReLU(0.2)        -> (B, 2w, 16, 16)
        blocks.2  conv 4x4 /2, LeakyReLU(0.2)        -> (B, 4w, 8, 8)
        blocks.3  conv 4x4 /2, LeakyReLU(0.2)        -> (B, 8w, 4, 4)
        head      flatten, Linear                    -> (B, 1)
    At 32x32 there are three blocks, at 16x16 two. The last block always ends at 4x4.

    Source: Radford et al. 2016, section 3, with Gulrajani et al. 2017, section 4 (no critic batch norm).
    """

    def __init__(self, *, image_size: int, channels: int = 3, width: int = 64) -> None:
        widths = _widths(image_size, width)
        super().__init__(
            nn.Identity(),
            nn.Sequential(*(_down_block(i, o) for i, o in pairwise([channels, *widths]))),
            nn.Sequential(nn.Flatten(), xavier(nn.Linear(widths[-1] * 16, 1))),
            image_shape=(channels, image_size, image_size),
        )
