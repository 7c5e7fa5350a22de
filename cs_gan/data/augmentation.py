"""Random numbers for each image of a batch, keyed by (seed, draw, image) and by nothing around it.

A generator for each image would cost more than the rest of the batch. SplitMix64 (Steele, Lea, Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014) needs none: its j-th output is a hash of (start + j gamma),
so a whole batch is a few array operations.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from cs_gan.randomness import derive_seed

Words = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def image_words(seed: int, draw: int, indices: list[int], count: int) -> Words:  # -> (B, count)
    """``count`` random 64-bit words for each image, a pure function of (seed, draw, index, occurrence).

    The occurrence is how often the index came before in ``indices``, so that an image that is drawn twice is not
    augmented twice alike.
    """
    seen: Counter[int] = Counter()
    positions = np.empty(len(indices), np.uint64)
    for row, index in enumerate(indices):
        positions[row] = index + (seen[index] << 40)  # no store has 2^40 images
        seen[index] += 1
    # Twice the same hash: the draw's stream gives each image a start, and from there runs the image's own.
    starts = splitmix(np.uint64(derive_seed(seed, "augmentation", draw)), positions)
    return splitmix(starts[:, None], np.arange(count, dtype=np.uint64))


def splitmix(start: Words | np.uint64, position: Words) -> Words:  # broadcasts
    """Output number ``position`` (from 0) of the SplitMix64 generator that starts at ``start``."""
    z = start + (position + np.uint64(1)) * _GAMMA
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def random_crops(images: Bytes, words: Words, crop: int) -> Bytes:  # (B, C, H, W), (B,) -> (B, C, H, W)
    """Each image padded by ``crop`` zeros on every side and cut out again where its word says.

    The word's top bit is left to the flip. Of 2^31 values, 2 crop + 1 places are alike to a millionth at most.
    """
    count, _, height, width = images.shape
    padded = np.zeros((*images.shape[:2], height + 2 * crop, width + 2 * crop), np.uint8)
    padded[:, :, crop : crop + height, crop : crop + width] = images
    places = np.uint64(2 * crop + 1)
    left = (words & np.uint64(0xFFFFFFFF)) % places
    top = (words >> np.uint64(32) & np.uint64(0x7FFFFFFF)) % places
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    chosen: Bytes = windows[np.arange(count), :, top, left]
    return chosen
