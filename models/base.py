"""The common part of all generators and critics: stem, blocks, head, and checks of inputs."""

from __future__ import annotations

from torch import Tensor, nn


class Generator(nn.Module):
    """A latent code in, images out: `head(blocks(stem(z)))`.

    `blocks` is an `nn.Sequential` whose members each map one tensor to one tensor, so that `"blocks.1"` names
    a part that can be wrapped; `stem` and `head` are such parts too. Each net's docstring lists their shapes.

    Shapes: z (B, latent_dim) -> images (B, channels, R, R) in [-1, 1].
    Errors: ValueError where z is not (B, latent_dim).
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
        super().__init__()
        self.stem = stem
        self.blocks = blocks
        self.head = head
        self.latent_dim = latent_dim
        self.image_shape = image_shape

    def forward(self, z: Tensor) -> Tensor:  # (B, latent_dim) -> (B, *image_shape)
        """Make one image of each latent code."""
        if z.dim() != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(
                f"{type(self).__name__} expects latent codes of shape (B, {self.latent_dim}), got "
                f"{tuple(z.shape)}; draw torch.randn(B, generator.latent_dim), or set `latent_dim` when it is built"
            )
        images: Tensor = self.head(self.blocks(self.stem(z)))
        return images


class Critic(nn.Module):
    """Images in, one score each: `head(blocks(stem(x)))`.

    `blocks` is an `nn.Sequential` as in `Generator`. No critic here has batch norm: the gradient penalty is
    per sample, and batch norm would make samples depend on each other.

    Shapes: images (B, channels, R, R) -> scores (B,), unbounded.
    Errors: ValueError where the images are not (B, *image_shape).
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: nn.Sequential,
        head: nn.Module,
        *,
        image_shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = blocks
        self.head = head
        self.image_shape = image_shape

    def forward(self, x: Tensor) -> Tensor:  # (B, *image_shape) -> (B,)
        """Score each image; higher means more like the data."""
        # A critic that ends in a global mean would score any size without complaint, and score it wrongly.
        if x.dim() != 4 or tuple(x.shape[1:]) != self.image_shape:
            shape = ", ".join(str(size) for size in self.image_shape)
            raise ValueError(
                f"{type(self).__name__} expects images of shape (B, {shape}), got {tuple(x.shape)}; resize "
                f"the images, choose a net for their size, or set `channels` when it is built"
            )
        scores: Tensor = self.head(self.blocks(self.stem(x)))
        return scores.squeeze(1)
