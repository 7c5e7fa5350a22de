"""The common part of all networks: stem, blocks and head. Generators and critics also check their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class StemBlocksHead(nn.Module):
    """`head(blocks(stem(x)))`.

    `blocks` is an `nn.Sequential`. Each of its members maps one tensor to one tensor, so `"blocks.1"` is the name of a
    block that can be coded, and so are `"stem"`, `"head"` and `""`, the whole network. The docstring of each network
    lists their shapes.
    """

    def __init__(self, stem: nn.Module, blocks: nn.Sequential, head: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = blocks
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Stem, blocks, head."""
        output: Tensor = self.head(self.blocks(self.stem(x)))
        return output


class Generator(StemBlocksHead):
    """From latent codes to images.

    Shapes: z (B, latent_dim) -> images (B, channels, R, R) in [-1, 1].
    Errors: ValueError if z is not (B, latent_dim).
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: nn.Sequential,
        head: nn.Module,
        *,
        latent_dim: int,
        image_shape: tuple[int, int, int],
    ) -> None:
        super().__init__(stem, blocks, head)
        self.latent_dim = latent_dim
        self.image_shape = image_shape

    def forward(self, z: Tensor) -> Tensor:  # (B, latent_dim) -> (B, *image_shape)
        """One image for each latent code."""
        self.require_latents(z)
        return super().forward(z)

    def require_latents(self, z: Tensor) -> None:
        """ValueError if z is not (B, latent_dim)."""
        if z.dim() != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(
                f"{type(self).__name__} expects latent codes of shape (B, {self.latent_dim}), got "
                f"{tuple(z.shape)}; draw torch.randn(B, generator.latent_dim), or set `latent_dim` when it is built"
            )


class Critic(StemBlocksHead):
    """From images to one score each.

    No critic here has batch norm, because the gradient penalty is per sample, and batch norm would make samples depend
    on each other.

    Shapes: images (B, channels, R, R) -> scores (B,), unbounded.
    Errors: ValueError if the images are not (B, *image_shape).
    """

    def __init__(
        self, stem: nn.Module, blocks: nn.Sequential, head: nn.Module, *, image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__(stem, blocks, head)
        self.image_shape = image_shape

    def forward(self, x: Tensor) -> Tensor:  # (B, *image_shape) -> (B,)
        """One score for each image; higher means more like the data."""
        self.require_images(x)
        return super().forward(x).squeeze(1)

    def require_images(self, x: Tensor) -> None:
        """ValueError if the images are not (B, *image_shape)."""
        # A critic that ends in a global mean would accept images of any size, and score them wrongly.
        if tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"{type(self).__name__} expects images of shape {named_shape('B', self.image_shape)}, got "
                f"{tuple(x.shape)}; resize the images, choose a net for their size, or set `channels` when it is built"
            )


def named_shape(batch: str, sample: tuple[int, ...]) -> str:
    """``(B, 3, 32, 32)``."""
    return f"({', '.join([batch, *map(str, sample)])})"


def require_fit(build: Callable[..., nn.Module], arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Check the arguments of a file's network against its tensors, before a network of that size is built.

    Errors: ValueError if names or shapes differ.
    """
    with torch.device("meta"):  # takes no memory
        expected = {key: value.shape for key, value in build(**arguments).state_dict().items()}
    stored = {key: value.shape for key, value in tensors.items()}
    if expected != stored:
        odd = sorted(key for key in expected.keys() | stored.keys() if expected.get(key) != stored.get(key))
        raise ValueError(f"its tensors don't fit its arguments {dict(arguments)}: {', '.join(odd[:4])}")
