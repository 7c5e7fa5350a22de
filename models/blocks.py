"""Residual blocks of the WGAN-GP networks.

Two exact transformations make them faster without changing the function:

- A 3x3 convolution followed by a 2x2 mean-pool is a 4x4 convolution of stride 2. Nearest upsampling followed by a 3x3
  convolution is a transposed one. Both need 16/36 of the multiplications. The parameter is still the 3x3 kernel. The
  4x4 kernel is computed from it in each call, so gradients of any order reach it.
- A 1x1 convolution can be exchanged with mean-pooling and with upsampling (their weights sum to 1, so the bias does not
  change). It runs on the smaller image.
"""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Upsampling = Literal["nearest", "bilinear"]
Layer = TypeVar("Layer", bound=nn.Conv2d | nn.Linear | nn.ConvTranspose2d)

# Gulrajani's `he_init`: sqrt(4 / (fan_in + fan_out)), Xavier's standard deviation times sqrt(2) because of ReLU.
RELU_GAIN = math.sqrt(2.0)


def xavier(layer: Layer, gain: float = 1.0) -> Layer:
    """Initialise `layer` with Xavier-uniform weights times `gain` and zero biases, and return it."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv3x3(in_channels: int, out_channels: int, *, bias: bool = True, gain: float = RELU_GAIN) -> nn.Conv2d:
    """A zero-padded 3x3 convolution that keeps the size, Xavier-uniform times `gain`."""
    return xavier(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias), gain)


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """The 1x1 convolution of a shortcut, Xavier-uniform."""
    return xavier(nn.Conv2d(in_channels, out_channels, 1))


def fold_mean_pool(weight: Tensor) -> Tensor:  # (out, in, 3, 3) -> (out, in, 4, 4)
    """Fold a 2x2 mean-pool after a 3x3 convolution into its kernel.

    The pooled output is the mean of four neighbouring outputs, so its kernel is the mean of the 3x3 kernel at four
    neighbouring positions. In one dimension (a, b, c) becomes (a, a + b, b + c, c) / 2: the mean of the zero-padded
    kernel over windows of two.
    """
    # Not avg_pool2d's own padding: on CUDA its gradient is wrong in channels_last (PyTorch issue 188344).
    return F.avg_pool2d(F.pad(weight, (1, 1, 1, 1)), kernel_size=2, stride=1)


def fold_nearest_upsample(weight: Tensor) -> Tensor:  # (out, in, 3, 3) -> (in, out, 4, 4)
    """Fold nearest 2x upsampling before a 3x3 convolution into a kernel for `conv_transpose2d`.

    Nearest upsampling is 4 times the adjoint of mean-pooling. The adjoint of a convolution has the kernel rotated by
    180 degrees, with input and output channels swapped.
    """
    return 4.0 * fold_mean_pool(weight).flip(2, 3).transpose(0, 1)


class ConvMeanPool(nn.Conv2d):
    """A zero-padded 3x3 convolution and a 2x2 mean-pool, computed as one 4x4 convolution of stride 2.

    The state dict is that of an `nn.Conv2d` with a 3x3 kernel.
    Shapes: (B, in, H, W) -> (B, out, H // 2, W // 2).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        xavier(self, RELU_GAIN)

    def forward(self, x: Tensor) -> Tensor:  # (B, in, H, W) -> (B, out, H // 2, W // 2)
        """Convolve and pool."""
        return F.conv2d(x, fold_mean_pool(self.weight), self.bias, stride=2, padding=1)


class UpsampleConv(nn.Conv2d):
    """2x upsampling and a zero-padded 3x3 convolution. If nearest, computed as one 4x4 transposed convolution.

    Bilinear upsampling clamps at the border. No zero-padded convolution does the same, so it runs as two operations.
    The state dict is that of an `nn.Conv2d` with a 3x3 kernel. Shapes: (B, in, H, W) -> (B, out, 2H, 2W).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, bias: bool = True, upsampling: Upsampling = "nearest"
    ) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)
        self.upsampling = upsampling
        xavier(self, RELU_GAIN)

    def forward(self, x: Tensor) -> Tensor:  # (B, in, H, W) -> (B, out, 2H, 2W)
        """Upsample and convolve."""
        if self.upsampling == "nearest":
            return F.conv_transpose2d(x, fold_nearest_upsample(self.weight), self.bias, stride=2, padding=1)
        return super().forward(upsample(x, self.upsampling))


def upsample(x: Tensor, upsampling: Upsampling) -> Tensor:  # (B, C, H, W) -> (B, C, 2H, 2W)
    """Double height and width."""
    return F.interpolate(x, scale_factor=2.0, mode=upsampling)


class LayerNorm(nn.GroupNorm):
    """Layer norm over channels and pixels with a scale and a shift for each channel: ``GroupNorm(1, channels)``.

    GroupNorm's CUDA kernels need channels first. In a channels_last network each call, and each derivative, copies to
    that layout and back. This computes the same function with one multiply-add per pixel, in any layout.
    Shapes: (B, C, H, W) -> same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H, W)
        """Normalise each sample."""
        if not x.is_cuda:
            return super().forward(x)
        # As GroupNorm: computed in float32 or better, and the input's dtype comes out unless autocast is on.
        wide = torch.promote_types(x.dtype, torch.float32)
        dtype, x = wide if torch.is_autocast_enabled("cuda") else x.dtype, x.to(wide)
        variance, mean = torch.var_mean(x, dim=(1, 2, 3), correction=0, keepdim=True)
        scale = torch.rsqrt(variance + self.eps) * self.weight.view(1, -1, 1, 1)
        return torch.addcmul(self.bias.view(1, -1, 1, 1) - mean * scale, x, scale).to(dtype)


class GeneratorBlock(nn.Module):
    """Residual up-block: BN, ReLU, upsample, conv3x3, BN, ReLU, conv3x3; shortcut upsample, conv1x1.

    Shapes: (B, in, H, W) -> (B, out, 2H, 2W). Source: Gulrajani et al. 2017, gan_cifar_resnet and gan_64x64. In
    gan_64x64 the first convolution has no bias (`first_bias=False`).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        upsampling: Upsampling = "nearest",
        first_bias: bool = True,
    ) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = UpsampleConv(in_channels, out_channels, bias=first_bias, upsampling=upsampling)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.shortcut = conv1x1(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:  # (B, in, H, W) -> (B, out, 2H, 2W)
        """Add the residual branch to the shortcut."""
        h = self.conv1(F.relu(self.norm1(x)))
        h = self.conv2(F.relu(self.norm2(h)))
        out: Tensor = h + upsample(self.shortcut(x), self.upsampling)
        return out


class CriticStemBlock(nn.Module):
    """First block of the CIFAR critic: conv3x3, ReLU, conv3x3, mean-pool; shortcut mean-pool, conv1x1.

    It does not start with a ReLU because its input is the image. Shapes: (B, in, H, W) -> (B, out, H/2, W/2).
    Source: Gulrajani et al. 2017, gan_cifar_resnet, `OptimizedResBlockDisc1`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels)
        self.conv2 = ConvMeanPool(out_channels, out_channels)
        self.shortcut = conv1x1(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:  # (B, in, H, W) -> (B, out, H/2, W/2)
        """Add the residual branch to the shortcut."""
        out: Tensor = self.conv2(F.relu(self.conv1(x))) + self.shortcut(F.avg_pool2d(x, 2))
        return out


class CriticBlock(nn.Module):
    """Residual critic block: [LN,] ReLU, conv3x3, [LN,] ReLU, conv3x3[, mean-pool].

    With `downsample` the shortcut is mean-pool and conv1x1. Otherwise the block keeps width and size, and the
    shortcut is the identity. LN is :class:`LayerNorm`, which works per sample, as the gradient penalty needs.

    Shapes: (B, in, H, W) -> (B, out, H/2, W/2), or unchanged without `downsample`.
    Source: Gulrajani et al. 2017, gan_cifar_resnet (no norm) and gan_64x64 (`layer_norm=True`, and `first_bias=False`
    because its first convolution has no bias).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        downsample: bool,
        layer_norm: bool = False,
        first_bias: bool = True,
    ) -> None:
        super().__init__()
        if not downsample and in_channels != out_channels:
            raise ValueError(
                f"CriticBlock({in_channels}, {out_channels}, downsample=False) has an identity shortcut, so "
                f"both widths must be equal; set downsample=True or equal widths"
            )
        self.downsample = downsample
        self.norm1: nn.Module = LayerNorm(in_channels) if layer_norm else nn.Identity()
        self.conv1 = conv3x3(in_channels, in_channels, bias=first_bias)
        self.norm2: nn.Module = LayerNorm(in_channels) if layer_norm else nn.Identity()
        self.conv2: nn.Conv2d = (
            ConvMeanPool(in_channels, out_channels) if downsample else conv3x3(in_channels, out_channels)
        )
        self.shortcut: nn.Module = conv1x1(in_channels, out_channels) if downsample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (B, in, H, W) -> (B, out, H/2, W/2) or (B, in, H, W)
        """Add the residual branch to the shortcut."""
        h = self.conv1(F.relu(self.norm1(x)))
        out: Tensor = self.conv2(F.relu(self.norm2(h)))
        out = out + self.shortcut(F.avg_pool2d(x, 2) if self.downsample else x)
        return out
