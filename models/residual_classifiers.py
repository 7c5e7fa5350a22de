"""Residual classifiers for CIFAR: ResNet-20, the pre-activation ResNet-18 and the wide ResNet-28-10."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


def conv_he(in_channels: int, out_channels: int, stride: int = 1, kernel: int = 3, bias: bool = False) -> nn.Conv2d:
    """A convolution, He normal by fan out as in the authors' code. No bias is needed before batch norm."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=bias)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def mean_linear(width: int, num_classes: int) -> nn.Sequential:  # (K, width, H, W) -> (K, num_classes)
    """Mean over the image, then :func:`last_linear`."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), last_linear(width, num_classes))


def last_linear(width: int, num_classes: int) -> nn.Linear:
    """A linear layer with torch's default weights and zero bias."""
    linear = nn.Linear(width, num_classes)
    nn.init.zeros_(linear.bias)
    return linear


def check_size(name: str, size: int, smallest: int) -> None:
    """Raise ValueError for images that are too small."""
    if size < smallest:
        raise ValueError(
            f"image_size={size} is too small for {name}, which shrinks it {smallest} times: use {smallest} or more"
        )


class ResidualBlock(nn.Module):
    """conv3x3, BN, ReLU, conv3x3, BN, plus the shortcut, ReLU.

    The shortcut has no parameters (option A): every `stride`-th pixel, and zeros for the missing channels.

    Shapes: (K, in, H, W) -> (K, out, H / stride, W / stride), rounded up.
    Source: He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.lacking = out_channels - in_channels
        self.conv1 = conv_he(in_channels, out_channels, stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv_he(out_channels, out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:  # (K, in, H, W) -> (K, out, H / stride, W / stride)
        """Add the residual branch to the shortcut, then ReLU."""
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.stride > 1:  # every stride-th pixel; the gradient of a slice would not stay in channels_last
            x = F.avg_pool2d(x, 1, self.stride)
        if self.lacking:  # F.pad lists the last axis first: no padding for width and height, zeros after the channels
            x = F.pad(x, (0, 0, 0, 0, 0, self.lacking))
        return F.relu(h + x)


class PreActBlock(nn.Module):
    """BN, ReLU, conv3x3, BN, ReLU, [dropout,] conv3x3, plus the shortcut.

    The shortcut is the identity, or a 1x1 convolution of the activated input if width or size change. `first` is for
    the block right after the stem's convolution. Its shortcut also uses the activated input.

    Shapes: (K, in, H, W) -> (K, out, H / stride, W / stride), rounded up.
    Source: He et al. 2016, Identity Mappings in Deep Residual Networks, figure 4e and the appendix; dropout as in
    Zagoruyko & Komodakis 2016, Wide Residual Networks, figure 1d.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, first: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        projects = stride != 1 or in_channels != out_channels
        self.activates_shortcut = first or projects
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv_he(in_channels, out_channels, stride)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv_he(out_channels, out_channels)
        self.shortcut = conv_he(in_channels, out_channels, stride, kernel=1) if projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (K, in, H, W) -> (K, out, H / stride, W / stride)
        """Add the residual branch to the shortcut."""
        activated = F.relu(self.norm1(x))
        h = self.conv2(self.dropout(F.relu(self.norm2(self.conv1(activated)))))
        out: Tensor = h + self.shortcut(activated if self.activates_shortcut else x)
        return out


def _stages(widths: list[int], per_stage: int) -> list[tuple[int, int, int]]:
    """(in, out, stride) of every block. `widths` starts with the stem's. All stages except the first halve the size."""
    blocks = []
    for stage, (before, width) in enumerate(pairwise(widths)):
        blocks.append((before, width, 1 if stage == 0 else 2))
        blocks += [(width, width, 1)] * (per_stage - 1)
    return blocks


def resnet20(
    input_shape: tuple[int, ...], num_classes: int, *, width: int = 16
) -> tuple[nn.Module, nn.Sequential, nn.Module]:
    """ResNet-20 for CIFAR: 269,722 parameters at 10 classes (the paper's 0.27 M).

    Parts, for width w (16), channels c and size R:
        stem      conv3x3, BN, ReLU                  (K, c, R, R) -> (K, w, R, R)
        blocks    0-2, 3-5, 6-8                      (K, w, R, R), (K, 2w, R/2, R/2), (K, 4w, R/4, R/4)
        head      mean over the image, Linear        -> (K, num_classes)

    Source: He et al. 2016, section 4.2, n = 3, shortcuts of option A. Errors: ValueError for images under 4 pixels.
    """
    check_size("resnet20", input_shape[1], 4)
    stem = nn.Sequential(conv_he(input_shape[0], width), nn.BatchNorm2d(width), nn.ReLU())
    sizes = _stages([width, width, 2 * width, 4 * width], per_stage=3)
    blocks = nn.Sequential(*(ResidualBlock(*size) for size in sizes))
    return stem, blocks, mean_linear(4 * width, num_classes)


def preact_resnet18(
    input_shape: tuple[int, ...], num_classes: int, *, width: int = 64
) -> tuple[nn.Module, nn.Sequential, nn.Module]:
    """Pre-activation ResNet-18 for CIFAR: 11,172,170 parameters at 10 classes.

    Parts, for width w (64), channels c and size R:
        stem      conv3x3                            (K, c, R, R) -> (K, w, R, R)
        blocks    0-1, 2-3, 4-5, 6-7                 (K, w, R, R), (K, 2w, R/2, R/2), ... (K, 8w, R/8, R/8)
        head      BN, ReLU, mean, Linear             -> (K, num_classes)

    Source: He et al. 2016, Identity Mappings, with the [2, 2, 2, 2] blocks of ResNet-18. Some code that is often used
    with mixup leaves out the paper's last BN and ReLU, which gives 1,024 parameters fewer (11,171,146).
    Errors: ValueError for images under 8 pixels.
    """
    check_size("preact_resnet18", input_shape[1], 8)
    sizes = _stages([width, width, 2 * width, 4 * width, 8 * width], per_stage=2)
    blocks = nn.Sequential(*(PreActBlock(*size, first=index == 0) for index, size in enumerate(sizes)))
    head = nn.Sequential(nn.BatchNorm2d(8 * width), nn.ReLU(), *mean_linear(8 * width, num_classes))
    return conv_he(input_shape[0], width), blocks, head


def wrn28_10(
    input_shape: tuple[int, ...], num_classes: int, *, width: int = 16, dropout: float = 0.0
) -> tuple[nn.Module, nn.Sequential, nn.Module]:
    """WRN-28-10, a wide ResNet for CIFAR: 36,479,194 parameters at 10 classes (the paper's 36.5 M).

    Parts, for width w (16), channels c and size R:
        stem      conv3x3                            (K, c, R, R) -> (K, w, R, R)
        blocks    0-3, 4-7, 8-11                     (K, 10w, R, R), (K, 20w, R/2, R/2), (K, 40w, R/4, R/4)
        head      BN, ReLU, mean, Linear             -> (K, num_classes)

    Source: Zagoruyko & Komodakis 2016, table 1 with N = 4, k = 10. `dropout` is between the convolutions of a block
    (the paper uses 0.3 on CIFAR). Errors: ValueError for images under 4 pixels.
    """
    check_size("wrn28_10", input_shape[1], 4)
    sizes = _stages([width, 10 * width, 20 * width, 40 * width], per_stage=4)
    blocks = nn.Sequential(*(PreActBlock(*size, first=index == 0, dropout=dropout) for index, size in enumerate(sizes)))
    head = nn.Sequential(nn.BatchNorm2d(40 * width), nn.ReLU(), *mean_linear(40 * width, num_classes))
    return conv_he(input_shape[0], width), blocks, head
