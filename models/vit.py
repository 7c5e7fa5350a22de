"""A small vision transformer: torchvision's modules, split into stem, blocks and head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torchvision.models import VisionTransformer

PATCH, LAYERS, HEADS = 4, 6, 4


class PatchEmbedding(nn.Module):
    """From images to tokens: a linear map of each patch, class token in front, plus positions, dropout.

    Shapes: (K, channels, R, R) -> (K, 1 + (R / 4)^2, width).
    Source: Dosovitskiy et al. 2021, equation 1.
    """

    def __init__(self, net: VisionTransformer) -> None:
        super().__init__()
        self.patches = net.conv_proj
        self.class_token = net.class_token
        self.positions = net.encoder.pos_embedding
        self.dropout = net.encoder.dropout

    def forward(self, x: Tensor) -> Tensor:  # (K, channels, R, R) -> (K, 1 + (R / 4)^2, width)
        """Embed each image."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1)
        embedded: Tensor = self.dropout(tokens + self.positions)
        return embedded


class ClassTokenHead(nn.Module):
    """Layer norm of the class token, then a linear layer.

    Shapes: (K, tokens, width) -> (K, num_classes). Source: Dosovitskiy et al. 2021, equation 4.
    """

    def __init__(self, net: VisionTransformer) -> None:
        super().__init__()
        self.norm = net.encoder.ln
        self.linear = net.heads

    def forward(self, tokens: Tensor) -> Tensor:  # (K, tokens, width) -> (K, num_classes)
        """The logits from the class token. Layer norm works per token, so the other tokens are not needed."""
        logits: Tensor = self.linear(self.norm(tokens[:, 0]))
        return logits


def vit32(
    input_shape: tuple[int, ...], num_classes: int, *, width: int = 192, dropout: float = 0.0
) -> tuple[nn.Module, nn.Sequential, nn.Module]:
    """Small ViT for 32x32 images, 4x4 patches, 6 layers of 4 heads: 1,806,538 parameters at 10 classes.

    Parts, for width w (192), channels c and size R, T = 1 + (R / 4)^2 tokens:
        stem      patches, class token, positions    (K, c, R, R) -> (K, T, w)
        blocks    6 encoder layers, MLP of 2w        (K, T, w)
        head      layer norm of the class token, Linear   -> (K, num_classes)

    All weights belong to modules of torchvision's `VisionTransformer` and have its initial values: zero for the last
    linear layer and the class token. So all logits are 0 at first, and the first step only changes the last layer.
    Source: Dosovitskiy et al. 2021. Needs torchvision.
    Errors: ValueError for an image size or a width that isn't a multiple of 4.
    """
    from torchvision.models import VisionTransformer  # here, so that the other networks don't need torchvision

    channels, size, _ = input_shape
    if size % PATCH:
        raise ValueError(f"image_size={size} doesn't cut into {PATCH}x{PATCH} patches: vit32 needs a multiple of 4")
    if width % HEADS:
        raise ValueError(f"width={width} doesn't split into {HEADS} heads: vit32 needs a multiple of 4")
    net = VisionTransformer(size, PATCH, LAYERS, HEADS, width, 2 * width, dropout, num_classes=num_classes)
    if channels != 3:  # torchvision's network is only for colour images
        net.conv_proj = nn.Conv2d(channels, width, PATCH, stride=PATCH)
        nn.init.trunc_normal_(net.conv_proj.weight, std=math.sqrt(1 / (channels * PATCH**2)))
        nn.init.zeros_(net.conv_proj.bias)
    return PatchEmbedding(net), nn.Sequential(*net.encoder.layers), ClassTokenHead(net)
