"""Augmentations inside the training step: differentiable, and functions of uniform numbers that are drawn outside.

All images are (B, C, H, W), whatever their range; what moves in from outside is 0, which is grey in [-1, 1].
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
    """Away from each pixel's grey, or towards it, by a factor of 2 u."""
    grey = x.mean(dim=1, keepdim=True)
    return (x - grey) * (2 * u).view(-1, 1, 1, 1) + grey


def contrasted(x: Tensor, u: Tensor) -> Tensor:  # (B, C, H, W), (B, 1)
    """Away from the image's mean, or towards it, by a factor of u + 1/2."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (u + 0.5).view(-1, 1, 1, 1) + mean


def coloured(x: Tensor, u: Tensor) -> Tensor:  # (B, C, H, W), (B, 3)
    """Brightness, saturation, contrast, in this order."""
    return contrasted(saturated(brightened(x, u[:, 0:1]), u[:, 1:2]), u[:, 2:3])


def translated(x: Tensor, u: Tensor) -> Tensor:  # (B, C, H, W), (B, 2)
    """Moved by a whole number of pixels, up to an eighth of each side in either direction."""
    rows, columns = (
        _shift(size, (u[:, i] * (2 * _most(size) + 1)).floor() - _most(size), x.dtype)
        for i, size in enumerate(x.shape[2:])
    )
    # As products, which have derivatives of any order with the same bits every time; gathering has not on CUDA.
    return rows[:, None] @ x @ columns[:, None].transpose(2, 3)


def _most(size: int) -> int:
    return int(size * TRANSLATION + 0.5)


def _shift(size: int, by: Tensor, dtype: torch.dtype) -> Tensor:  # (B,) -> (B, size, size) of 0 and 1
    """Row i of the product is row i + by, or 0 where there is none."""
    index = torch.arange(size, device=by.device)
    return (index[None, None, :] == index[None, :, None] + by[:, None, None]).to(dtype)


def cut_out(x: Tensor, u: Tensor) -> Tensor:  # (B, C, H, W), (B, 2)
    """A square of half the side set to 0; its centre is anywhere in the image."""
    inside = []
    for i, size in enumerate(x.shape[2:]):
        cut = int(size * CUTOUT + 0.5)
        first = (u[:, i] * (size + (1 - cut % 2))).floor() - cut // 2
        index = torch.arange(size, device=x.device)
        inside.append((index >= first[:, None]) & (index < first[:, None] + cut))
    return x.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)


def flipped(x: Tensor, u: Tensor) -> Tensor:  # (B, C, H, W), (B, 1)
    """Mirrored where u < 1/2."""
    return torch.where((u < 0.5).view(-1, 1, 1, 1), x.flip(3), x)


_KINDS: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "color": (3, coloured),
    "translation": (2, translated),
    "cutout": (2, cut_out),
    "flip": (1, flipped),
}
DIFF_AUGMENT = ("color", "translation", "cutout")
"""The policy that the source uses with little data."""
VIEW = ("flip", "translation")
"""What consistency regularisation compares an image with: flipped and moved by a few pixels (Zhang et al. 2020)."""


def diff_augment(x: Tensor, key: Tensor, policy: Sequence[str] = DIFF_AUGMENT) -> Tensor:
    """Augment images so that gradients pass.

    Apply it to real and fake images alike wherever the critic sees them, in the generator's step too.

    Args:
        x: (B, C, H, W).
        key: () int64 on the images' device; all draws derive from it. ``torch.tensor(derive_seed(...))`` makes one.
        policy: of color, translation, cutout and flip, in the order in which they are applied.

    Raises:
        ValueError: for another name in the policy.

    Source: Zhao et al. 2020 (DiffAugment), section 3.2 and the authors' ranges.
    """
    for kind in policy:
        if kind not in _KINDS:
            raise ValueError(f"policy={list(policy)}: {kind!r} is unknown; there are {', '.join(_KINDS)}.")
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
    """share x_i + (1 - share) x_(i - 1), each image with its predecessor in the batch.

    Mixup of real images only: in a GAN there are no labels to mix. Source: Zhang et al. 2018, section 2.
    """
    return images * share + images.roll(1, 0) * (1 - share)
