"""Random augmentation of each image in a batch, keyed only by (seed, draw, image).

The host determines which images come and how often each came before. The rest is arithmetic on tensors. It gives the
same bits on every device and can be captured in a CUDA graph.
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
"""Number of bits for the image's index in a position: no store has 2^40 images."""


def positions(indices: Sequence[int]) -> Tensor:  # (B,) -> (B,) int64
    """Index and occurrence of each image in one number.

    The occurrence is how often the index came before in ``indices``. So an image that is drawn twice gets two different
    augmentations.
    """
    seen: Counter[int] = Counter()
    places = []
    for index in indices:
        places.append(index + (seen[index] << OCCURRENCE))
        seen[index] += 1
    return torch.tensor(places, dtype=torch.int64)


def image_words(key: Tensor | int, where: Tensor, first: int, count: int) -> Tensor:  # (B,) -> (B, count) int64
    """Random words from number ``first`` on for each position, a pure function of key and position."""
    # The same hash twice: the stream of the draw gives each image its start, and the image's own stream starts there.
    return splitmix(splitmix(key, where)[:, None], torch.arange(first, first + count, device=where.device))


def augmented(
    images: Tensor, where: Tensor, key: Tensor | int, *, flip: bool = False, crop: int = 0, dequantize: bool = False
) -> Tensor:  # (n, C, H, W) uint8, (B,) -> (B, C, H, W) float32
    """A batch in [-1, 1]: what :meth:`ImageStore.batch` gives, without its checks, on the images' device.

    Args:
        images: all images.
        where: from :func:`positions`, on the images' device.
        key: a 63-bit number, or a tensor on the device: () or, with one key per image, (B,).
        flip, crop, dequantize: as in :meth:`ImageStore.batch`.
    """
    rows = where & ((1 << OCCURRENCE) - 1)
    values = math.prod(images.shape[1:])
    chosen = images[rows]
    # The first word is always for flip and crop. Each of the others gives four values.
    first = image_words(key, where, 0, 1)[:, 0]
    if flip:
        chosen = torch.where((first < 0).view(-1, 1, 1, 1), chosen.flip(3), chosen)
    if crop:
        chosen = _random_crops(chosen, first, crop)
    batch = scaled(chosen)
    if dequantize:
        # In 65,536 steps; the first two bytes of a word are for the first value.
        steps = image_words(key, where, 1, math.ceil(values / 4)).view(torch.int16)[:, :values].to(torch.int32)
        steps = steps.bitwise_and_(0xFFFF)
        batch += (steps * (DEQUANTISATION_WIDTH / 2**16)).view(batch.shape)
    return batch


def scaled(images: Tensor) -> Tensor:  # uint8 -> float32 in [-1, 1]
    """``x / 127.5 - 1``, with the same bits on every device."""
    # CUDA would replace division by a number with multiplication by its reciprocal, which rounds differently.
    return images.to(torch.float32).div_(torch.full((), 127.5, device=images.device)).sub_(1)


def _random_crops(images: Tensor, words: Tensor, crop: int) -> Tensor:  # (B, C, H, W), (B,) -> (B, C, H, W)
    """Pads each image by ``crop`` zeros on every side and cuts out the position that its word selects.

    The top bit of the word is for the flip. With 2^31 values, the 2 crop + 1 positions are equally likely up to a
    millionth.
    """
    height, width = images.shape[2:]
    places = 2 * crop + 1
    left = (words & 0xFFFFFFFF) % places
    top = (words >> 32 & 0x7FFFFFFF) % places
    padded = torch.nn.functional.pad(images, [crop] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, places, places, H, W), a view
    return windows[torch.arange(len(images), device=images.device), :, top, left]
