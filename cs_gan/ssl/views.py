"""Random views of images: crop, flip, rotation, colours, grey, noise, as arithmetic on tensors.

All random numbers of a view come from one SplitMix64 key (:mod:`cs_gan.randomness`). So views can be made on the
images' device, also inside a CUDA graph, and a resumed run gets the same views as an uninterrupted one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cs_gan.randomness import normal, splitmix, uniform

DRAWN = 15
"""Uniform numbers per view: 5 for the crop, rotation, flip, 4 for the jitter, jitter on or off, grey, 2 unused."""

GREY = (0.299, 0.587, 0.114)
"""Luma of red, green and blue (ITU-R BT.601), as torchvision's greys."""


@dataclass(frozen=True)
class Views:
    """How views are drawn. With the default values a setting does nothing.

    Args:
        crop_scale: smallest share of the image's area in a crop; the share is uniform from there to 1.
        crop_ratio: largest ratio of width to height; its logarithm is uniform. 1 keeps the image's own.
        turn: largest rotation in degrees, to either side; border pixels repeat outside.
        flip: mirror half of the views.
        jitter: strength s of the colour jitter of 80 % of the views: brightness, contrast and saturation are scaled by
            1 - 0.8 s to 1 + 0.8 s, in this order, and the hue is rotated by up to 0.2 s of a circle. Grey images have
            no saturation and no hue.
        grey: share of RGB views that become grey.
        noise: standard deviation of normal noise on pixels in [-1, 1].

    The ranges are SimCLR's (Chen et al. 2020, appendix A), whose CIFAR-10 runs have s = 0.5 and no blur. Ours differ in
    two ways: the jitter has a fixed order, and the hue is rotated in YIQ.
    """

    crop_scale: float = 1.0
    crop_ratio: float = 1.0
    turn: float = 0.0
    flip: bool = False
    jitter: float = 0.0
    grey: float = 0.0
    noise: float = 0.0

    @torch.no_grad()
    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:  # (B, C, H, W), (V,) -> (V B, C, H, W)
        """One view of every image per key; all views of the first key come first.

        Args:
            images: float32 in [-1, 1].
            keys: (V,) int64 on the images' device.
        """
        numbers = uniform(keys, len(images), DRAWN).flatten(0, 1).unbind(1)  # each (V B,)
        pixels = images.add(1).div(2).repeat(len(keys), 1, 1, 1)
        pixels = self._placed(pixels, numbers[:7])
        if self.jitter:
            pixels = self._jittered(pixels, numbers[7:12])
        if self.grey and pixels.shape[1] == 3:
            pixels = torch.where(_per_image(numbers[12] < self.grey), _luma(pixels), pixels)
        if self.noise:
            # Another stream of the same key, because the uniform numbers are the first outputs of the key itself.
            noise_keys = splitmix(keys, torch.full_like(keys, -2))
            pixels = pixels + normal(noise_keys, len(images), *images.shape[1:]).flatten(0, 1) * (self.noise / 2)
        return pixels.mul(2).sub(1)

    def _placed(self, pixels: Tensor, numbers: tuple[Tensor, ...]) -> Tensor:
        """Crop, rotation and flip in one sampling, in coordinates where the image is [-1, 1] x [-1, 1]."""
        area = 1 - (1 - self.crop_scale) * numbers[0]
        ratio = ((2 * numbers[1] - 1) * math.log(self.crop_ratio)).exp()
        width, height = ((area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1))
        left, top = (2 * numbers[2] - 1) * (1 - width), (2 * numbers[3] - 1) * (1 - height)
        angle = (2 * numbers[4] - 1) * math.radians(self.turn)
        if self.flip:
            width = torch.where(numbers[5] < 0.5, -width, width)
        # x' = left + cos w x - sin h y,  y' = top + sin w x + cos h y. No matrix product: it may round to TF32.
        rows, columns = pixels.shape[2:]
        x = _centres(columns, pixels.device)[None, None, :]
        y = _centres(rows, pixels.device)[None, :, None]
        sin, cos = angle.sin(), angle.cos()
        across = _flat(left) + _flat(cos * width) * x - _flat(sin * height) * y
        down = _flat(top) + _flat(sin * width) * x + _flat(cos * height) * y
        grid = torch.stack([across, down], dim=3)
        return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)

    def _jittered(self, pixels: Tensor, numbers: tuple[Tensor, ...]) -> Tensor:
        """Brightness and contrast; for colour images also saturation and hue."""
        brightness, contrast, saturation = (1 + 0.8 * self.jitter * (2 * d - 1) for d in numbers[:3])
        out = (pixels * _per_image(brightness)).clamp(0, 1)
        mean = _luma(out).mean((1, 2, 3), keepdim=True)
        out = torch.lerp(mean, out, _per_image(contrast)).clamp(0, 1)
        if pixels.shape[1] == 3:
            out = torch.lerp(_luma(out), out, _per_image(saturation)).clamp(0, 1)
            out = _hue_turned(out, (2 * numbers[3] - 1) * (0.2 * self.jitter * 2 * math.pi)).clamp(0, 1)
        return torch.where(_per_image(numbers[4] < 0.8), out, pixels)


def _hue_turned(pixels: Tensor, angle: Tensor) -> Tensor:  # (B, 3, H, W), (B,) -> (B, 3, H, W)
    """Rotates colours about the grey axis in YIQ (the NTSC matrix and its inverse). Luma does not change."""
    red, green, blue = pixels.unbind(1)
    luma = _luma(pixels)[:, 0]
    i = 0.596 * red - 0.274 * green - 0.322 * blue
    q = 0.211 * red - 0.523 * green + 0.312 * blue
    sin, cos = _flat(angle.sin()), _flat(angle.cos())
    i, q = cos * i - sin * q, sin * i + cos * q
    turned = [luma + 0.956 * i + 0.621 * q, luma - 0.272 * i - 0.647 * q, luma - 1.106 * i + 1.703 * q]
    return torch.stack(turned, dim=1)


def _luma(pixels: Tensor) -> Tensor:  # (B, C, H, W) -> (B, 1, H, W)
    if pixels.shape[1] != 3:
        return pixels.mean(1, keepdim=True)
    red, green, blue = pixels.unbind(1)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue).unsqueeze(1)


def _centres(count: int, device: torch.device) -> Tensor:  # -> (count,) pixel centres in [-1, 1]
    return (2 * torch.arange(count, device=device, dtype=torch.float32) + 1) / count - 1


def _per_image(values: Tensor) -> Tensor:  # (B,) -> (B, 1, 1, 1)
    return values.view(-1, 1, 1, 1)


def _flat(values: Tensor) -> Tensor:  # (B,) -> (B, 1, 1)
    return values.view(-1, 1, 1)
