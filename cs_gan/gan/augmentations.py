"""Differentiable augmentations inside the training step, as functions of uniform numbers drawn by the caller.

All images are (B, C, H, W), in any range. Pixels shifted in from outside the image are 0, which is grey in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cs_gan.randomness import uniform

TRANSLATION = 1 / 8  # of the side, at most
CUTOUT = 1 / 2  # side of the square, of the image's


def brightened(x: Tensor, u: Tensor) -> Tensor:  # (B, C, H, W), (B, 1)
    """x + (u - 1/2)."""
    return x + (u - 0.5).view(-1, 1, 1, 1)


def saturated(x: Tensor, u: Tensor) -> Tensor:  # (B, C, H, W), (B, 1)
    """Saturation: scales the distance from each pixel's grey value by 2 u."""
    grey = x.mean(dim=1, keepdim=True)
    return (x - grey) * (2 * u).view(-1, 1, 1, 1) + grey


def contrasted(x: Tensor, u: Tensor) -> Tensor:  # (B, C, H, W), (B, 1)
    """Contrast: scales the distance from the image's mean by u + 1/2."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (u + 0.5).view(-1, 1, 1, 1) + mean


def coloured(x: Tensor, u: Tensor) -> Tensor:  # (B, C, H, W), (B, 3)
    """Brightness, saturation, contrast, in this order."""
    return contrasted(saturated(brightened(x, u[:, 0:1]), u[:, 1:2]), u[:, 2:3])


def translated(x: Tensor, u: Tensor) -> Tensor:  # (B, C, H, W), (B, 2)
    """Shifts by a whole number of pixels, up to an eighth of each side in either direction."""
    rows, columns = (
        _shift(size, (u[:, i] * (2 * _most(size) + 1)).floor() - _most(size), x.dtype)
        for i, size in enumerate(x.shape[2:])
    )
    # Matrix products have deterministic derivatives of any order. On CUDA, gathering does not.
    return rows[:, None] @ x @ columns[:, None].transpose(2, 3)


def _most(size: int) -> int:
    return int(size * TRANSLATION + 0.5)


def _shift(size: int, by: Tensor, dtype: torch.dtype) -> Tensor:  # (B,) -> (B, size, size) of 0 and 1
    """Row i of the product is row i + by of the factor, or 0 if there is none."""
    index = torch.arange(size, device=by.device)
    return (index[None, None, :] == index[None, :, None] + by[:, None, None]).to(dtype)


def cut_out(x: Tensor, u: Tensor) -> Tensor:  # (B, C, H, W), (B, 2)
    """Sets a square of half the side to 0. Its centre can be anywhere in the image."""
    inside = []
    for i, size in enumerate(x.shape[2:]):
        cut = int(size * CUTOUT + 0.5)
        first = (u[:, i] * (size + (1 - cut % 2))).floor() - cut // 2
        index = torch.arange(size, device=x.device)
        inside.append((index >= first[:, None]) & (index < first[:, None] + cut))
    return x.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)


def flipped(x: Tensor, u: Tensor) -> Tensor:  # (B, C, H, W), (B, 1)
    """Mirrors images with u < 1/2."""
    return torch.where((u < 0.5).view(-1, 1, 1, 1), x.flip(3), x)


_KINDS: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "color": (3, coloured),
    "translation": (2, translated),
    "cutout": (2, cut_out),
    "flip": (1, flipped),
}
DIFF_AUGMENT = ("color", "translation", "cutout")
"""The policy that the source uses for few images."""
VIEW = ("flip", "translation")
"""The policy of consistency regularisation: flip and shift by a few pixels (Zhang et al. 2020)."""


def diff_augment(x: Tensor, key: Tensor, policy: Sequence[str] = DIFF_AUGMENT) -> Tensor:
    """Augment images differentiably.

    Apply it to all images that the critic sees, real and fake, also in the generator step.

    Args:
        x: (B, C, H, W).
        key: () int64 on the images' device; it fixes all draws. ``torch.tensor(derive_seed(...))`` makes one.
        policy: names from color, translation, cutout and flip, in the order of application.

    Raises:
        ValueError: for an unknown name in the policy.

    Source: Zhao et al. 2020 (DiffAugment), section 3.2 and the authors' ranges.
    """
    for kind in policy:
        if kind not in _KINDS:
            raise ValueError(f"policy={list(policy)}: {kind!r} is unknown. Choose from {', '.join(_KINDS)}.")
    if not policy:
        return x
    draws = uniform(key, len(x), sum(_KINDS[kind][0] for kind in policy)).to(x.dtype)
    first = 0
    for kind in policy:
        count, augment = _KINDS[kind]
        x = augment(x, draws[:, first : first + count])
        first += count
    return x


def mixed_images(images: Tensor, share: Tensor | float) -> Tensor:  # (B, *F), () -> (B, *F)
    """share x_i + (1 - share) x_(i - 1): mixes each image with its predecessor in the batch.

    Mixup of real images only, because a GAN has no labels to mix. Source: Zhang et al. 2018, section 2.
    """
    return images * share + images.roll(1, 0) * (1 - share)
