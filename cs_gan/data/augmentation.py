"""What is drawn for each image of a batch, keyed by (seed, draw, image) and by nothing around it.

The host says which images come, and how often each came before; all else is arithmetic on tensors, on whatever device
they lie, with the same bits on each, and can be captured in a CUDA graph.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from cs_gan.randomness import splitmix

DEQUANTISATION_WIDTH = 1 / 128
"""Width of the uniform noise on pixels in [-1, 1] (one grey level is 1/127.5), as in Gulrajani's WGAN-GP code."""

OCCURRENCE = 40
"""Bits of a position that hold the image's index: no store has 2^40 images."""


def positions(indices: Sequence[int]) -> Tensor:  # (B,) -> (B,) int64
    """Index and occurrence of each image in one number.

    The occurrence is how often the index came before in ``indices``, so that an image that is drawn twice is not
    augmented twice alike.
    """
    seen: Counter[int] = Counter()
    found = []
    for index in indices:
        found.append(index + (seen[index] << OCCURRENCE))
        seen[index] += 1
    return torch.tensor(found, dtype=torch.int64)


def image_words(key: Tensor | int, where: Tensor, first: int, count: int) -> Tensor:  # (B,) -> (B, count) int64
    """Random words number ``first`` and on for each position, a pure function of key and position."""
    # Twice the same hash: the draw's stream gives each image a start, and from there runs the image's own.
    return splitmix(splitmix(key, where)[:, None], torch.arange(first, first + count, device=where.device))


def augmented(
    images: Tensor, where: Tensor, key: Tensor | int, *, flip: bool = False, crop: int = 0, dequantize: bool = False
) -> Tensor:  # (n, C, H, W) uint8, (B,) -> (B, C, H, W) float32
    """A batch in [-1, 1]: what :meth:`ImageStore.batch` gives, without its checks, on the images' device.

    Args:
        images: all of them.
        where: of :func:`positions`, on the images' device.
        key: a 63-bit number, or a tensor of it there: () or, one for each image, (B,).
        flip, crop, dequantize: as in :meth:`ImageStore.batch`.
    """
    rows = where & ((1 << OCCURRENCE) - 1)
    values = math.prod(images.shape[1:])
    chosen = images[rows]
    # The first word is the flip's and the crop's, whatever else is drawn; of the others each serves four values.
    first = image_words(key, where, 0, 1)[:, 0]
    if flip:
        chosen = torch.where((first < 0).view(-1, 1, 1, 1), chosen.flip(3), chosen)
    if crop:
        chosen = _random_crops(chosen, first, crop)
    batch = scaled(chosen)
    if dequantize:
        # In 65,536 steps; a word's first two bytes are the first value's.
        steps = image_words(key, where, 1, math.ceil(values / 4)).view(torch.int16)[:, :values].to(torch.int32)
        steps = steps.bitwise_and_(0xFFFF)
        batch += (steps * (DEQUANTISATION_WIDTH / 2**16)).view(batch.shape)
    return batch


def scaled(images: Tensor) -> Tensor:  # uint8 -> float32 in [-1, 1]
    """``x / 127.5 - 1``, with the same bits on every device."""
    # By a number CUDA would multiply with its reciprocal, which rounds otherwise.
    return images.to(torch.float32).div_(torch.full((), 127.5, device=images.device)).sub_(1)


def _random_crops(images: Tensor, words: Tensor, crop: int) -> Tensor:  # (B, C, H, W), (B,) -> (B, C, H, W)
    """Each image padded by ``crop`` zeros on every side and cut out again where its word says.

    The word's top bit is left to the flip. Of 2^31 values, 2 crop + 1 places are alike to a millionth at most.
    """
    height, width = images.shape[2:]
    places = 2 * crop + 1
    left = (words & 0xFFFFFFFF) % places
    top = (words >> 32 & 0x7FFFFFFF) % places
    padded = torch.nn.functional.pad(images, [crop] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, places, places, H, W), a view
    return windows[torch.arange(len(images), device=images.device), :, top, left]
