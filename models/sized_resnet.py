"""One pair of residual WGAN-GP networks for images of 16, 32, 64 or 128 pixels."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from models.base import Critic, Generator
from models.blocks import RELU_GAIN, CriticBlock, CriticStemBlock, GeneratorBlock
from models.resnet import GlobalMeanHead, image_head, latent_stem

IMAGE_SIZES = (16, 32, 64, 128)


def widths_at(image_size: int, width: int) -> list[int]:
    """Channels at 4, 8, ..., image_size pixels: width at the full size, twice as many at half of it, 16 times at most.

    At 64 and 128 pixels these are the widths of SNGAN's residual networks. Errors: ValueError for another size.
    """
    if image_size not in IMAGE_SIZES:
        sizes = f"{', '.join(map(str, IMAGE_SIZES[:-1]))} or {IMAGE_SIZES[-1]}"
        raise ValueError(f"image_size = {image_size}: the resnet pair is for images of {sizes} pixels")
    levels = image_size.bit_length() - 2
    return [width * min(16, 2**level) for level in reversed(range(levels))]


class SizedGenerator(Generator):
    """The generator of any size.

    Parts at 128x128, for width w (64) and channels c (3):
        stem      Linear                             (B, latent_dim) -> (B, 16w, 4, 4)
        blocks.0  GeneratorBlock                     -> (B, 16w, 8, 8)
        blocks.1  GeneratorBlock                     -> (B, 8w, 16, 16)
        blocks.2  GeneratorBlock                     -> (B, 4w, 32, 32)
        blocks.3  GeneratorBlock                     -> (B, 2w, 64, 64)
        blocks.4  GeneratorBlock                     -> (B, w, 128, 128)
        head      BN, ReLU, conv3x3, tanh            -> (B, c, 128, 128)
    Half the size has one block less: 64x64 begins with 16w channels, 32x32 with 8w, 16x16 with 4w.
    """

    def __init__(self, *, image_size: int = 32, channels: int = 3, latent_dim: int = 128, width: int = 64) -> None:
        widths = widths_at(image_size, width)
        super().__init__(
            latent_stem(latent_dim, widths[0]),
            nn.Sequential(*(self.block(i, o) for i, o in pairwise(widths))),
            image_head(width, channels, gain=RELU_GAIN),
            latent_dim=latent_dim,
            image_shape=(channels, image_size, image_size),
        )

    def block(self, in_channels: int, out_channels: int) -> nn.Module:
        """A block that doubles the size."""
        return GeneratorBlock(in_channels, out_channels)


class SizedCritic(Critic):
    """The critic of any size, without normalisation.

    Parts at 128x128, for width w (64) and channels c (3):
        stem      identity                           (B, c, 128, 128)
        blocks.0  CriticStemBlock                    -> (B, w, 64, 64)
        blocks.1  CriticBlock, downsampling          -> (B, 2w, 32, 32)
        blocks.2  CriticBlock, downsampling          -> (B, 4w, 16, 16)
        blocks.3  CriticBlock, downsampling          -> (B, 8w, 8, 8)
        blocks.4  CriticBlock, downsampling          -> (B, 16w, 4, 4)
        blocks.5  CriticBlock                        -> (B, 16w, 4, 4)
        head      ReLU, global mean, Linear          -> (B, 1)
    Half the size has one downsampling block less.
    """

    def __init__(self, *, image_size: int = 32, channels: int = 3, width: int = 64) -> None:
        widths = widths_at(image_size, width)[:0:-1]  # from half the size down to 4
        super().__init__(
            nn.Identity(),
            nn.Sequential(
                CriticStemBlock(channels, width),
                *(CriticBlock(i, o, downsample=True) for i, o in pairwise(widths)),
                CriticBlock(widths[-1], widths[-1], downsample=False),
            ),
            GlobalMeanHead(widths[-1]),
            image_shape=(channels, image_size, image_size),
        )
