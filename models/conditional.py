"""Class-conditional networks: the resnet pair with conditional batch norm and a projection critic.

Both take the classes of the batch, int64 (B,), as second argument. Sources: Dumoulin et al. 2017 (conditional batch
norm), Miyato and Koyama 2018 (projection); torch-mimicry's and StudioGAN's networks have both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Generator
from models.blocks import GeneratorBlock, upsample
from models.resnet import GlobalMeanHead
from models.sized_resnet import SizedCritic, SizedGenerator


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and shift belong to the class; at first they are 1 and 0 for all.

    Shapes: (B, C, H, W), int64 (B,) -> (B, C, H, W).
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Embedding(num_classes, channels)
        self.shift = nn.Embedding(num_classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Normalise over the whole batch, then scale and shift by class."""
        scale, shift = (table(labels)[:, :, None, None] for table in (self.scale, self.shift))
        return torch.addcmul(shift, self.norm(x), scale)


class ConditionalGeneratorBlock(GeneratorBlock):
    """A :class:`GeneratorBlock` with conditional batch norm. Shapes: (B, in, H, W), (B,) -> (B, out, 2H, 2W)."""

    def __init__(self, in_channels: int, out_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, out_channels)
        self.norm1 = ConditionalBatchNorm(in_channels, num_classes)  # type: ignore[assignment]
        self.norm2 = ConditionalBatchNorm(out_channels, num_classes)  # type: ignore[assignment]

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        """Add the residual branch to the shortcut."""
        h = self.conv1(F.relu(self.norm1(x, labels)))
        h = self.conv2(F.relu(self.norm2(h, labels)))
        out: Tensor = h + upsample(self.shortcut(x), self.upsampling)
        return out


class ConditionalGenerator(SizedGenerator):
    """:class:`SizedGenerator` with conditional batch norm in its blocks; stem and head are the same for all classes.

    Shapes: z (B, latent_dim), labels (B,) -> images (B, channels, R, R) in [-1, 1].
    Errors: ValueError for latents or labels of another shape or type.
    """

    def __init__(self, num_classes: int, **others: int) -> None:
        self.num_classes = num_classes  # before the blocks are made
        super().__init__(**others)

    def block(self, in_channels: int, out_channels: int) -> nn.Module:
        """A block that doubles the size."""
        return ConditionalGeneratorBlock(in_channels, out_channels, self.num_classes)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """One image of its class for each latent code."""
        self.require_latents(z)
        labels = required_labels(self, z, labels)
        h = self.stem(z)
        for block in self.blocks:
            h = block(h, labels)
        images: Tensor = self.head(h)
        return images


class ProjectionHead(GlobalMeanHead):
    """``w . f + b + e_y . f`` for f the mean over the pixels after a ReLU: a score, and how well f fits the class.

    Shapes: (B, C, H, W), (B,) -> (B, 1). Source: Miyato and Koyama 2018, equation 3.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(channels)
        self.classes = nn.Embedding(num_classes, channels)
        nn.init.xavier_uniform_(self.classes.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        """One score for each image."""
        features = F.relu(x).mean(dim=(2, 3))
        score: Tensor = self.linear(features) + (self.classes(labels) * features).sum(dim=1, keepdim=True)
        return score


class ConditionalCritic(SizedCritic):
    """:class:`SizedCritic` with a projection head.

    Shapes: images (B, channels, R, R), labels (B,) -> scores (B,), unbounded.
    Errors: ValueError for images or labels of another shape or type.
    """

    def __init__(self, num_classes: int, **others: int) -> None:
        super().__init__(**others)
        self.head = ProjectionHead(self.head.linear.in_features, num_classes)  # type: ignore[union-attr, arg-type]

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """One score for each image: higher means more like the data of its class."""
        self.require_images(x)
        labels = required_labels(self, x, labels)
        scores: Tensor = self.head(self.blocks(self.stem(x)), labels)
        return scores.squeeze(1)


class ClassDrawing(nn.Module):
    """A conditional generator as a function of latents alone: it draws the classes from torch's global CPU generator.

    Scores need such a generator. Shapes: z (B, latent_dim) -> images.

    Args:
        generator: takes latents and labels.
        shares: (classes,), how often each class comes; they need not sum to 1.
        latent_dim: of the generator.
    """

    def __init__(self, generator: nn.Module, shares: Tensor, latent_dim: int) -> None:
        super().__init__()
        self.generator, self.shares, self.latent_dim = generator, shares.double().cpu(), latent_dim

    def forward(self, z: Tensor) -> Tensor:
        """One image for each latent code."""
        labels = torch.multinomial(self.shares, len(z), replacement=True)
        images: Tensor = self.generator(z, labels.to(z.device))
        return images


def required_labels(network: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
    """The labels; ValueError unless there is an int64 one for each sample."""
    if labels is None or labels.dtype != torch.int64 or labels.shape != x.shape[:1]:
        given = "none" if labels is None else f"{labels.dtype} {tuple(labels.shape)}"
        second = "latents" if isinstance(network, Generator) else "images"
        raise ValueError(
            f"{type(network).__name__} takes {second} and their classes, int64 ({len(x)},) for this batch; got {given}"
        )
    return labels
