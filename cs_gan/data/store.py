"""The decoded images of a run and how a batch is made of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from cs_gan.data.augmentation import image_words
from cs_gan.errors import DataError

DEQUANTISATION_WIDTH = 1 / 128
"""Width of the uniform noise on pixels in [-1, 1] (one grey level is 1/127.5), as in Gulrajani's WGAN-GP code."""


@dataclass(frozen=True, eq=False)
class ImageStore:
    """Images decoded once, as uint8 on the CPU.

    Attributes:
        images: (n, C, H, W) uint8, in memory or memory-mapped.
        labels: (n,) int64 class numbers, or None where the data has no classes.
        name: the data set's name, such as ``"cifar10"``.
        description: one line for logs and reports.
        split: what part of the data this is; ``"all"`` where it isn't split.
        preparation: crop, resize and channels, in words; part of the fingerprint.
    """

    images: Tensor
    labels: Tensor | None
    name: str
    description: str
    split: str = "all"
    preparation: str = "as stored"

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if self.images.dtype != torch.uint8 or len(shape) != 4 or 0 in shape:
            raise DataError(
                f"ImageStore(images={self.images.dtype} of shape {shape}): images must be uint8 (n, C, H, W), none "
                "of them 0."
            )
        if self.labels is not None and self.labels.shape != shape[:1]:
            raise DataError(f"ImageStore has {shape[0]} images but labels of shape {tuple(self.labels.shape)}.")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of a SHA-256 over name, split, preparation, shape and every pixel.

        Two stores share it only if they hold the same images, made in the same way, in the same order, so it
        can key a cache of reference statistics. Computed on first use, at a few hundred MiB a second.
        """
        what = (self.name, self.split, self.preparation, tuple(self.images.shape))
        digest = hashlib.sha256(repr(what).encode())
        for start in range(0, len(self), 4096):
            digest.update(self.images[start : start + 4096].contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def batch(
        self,
        indices: Tensor | Sequence[int],
        *,
        augmentation: tuple[int, int] | None = None,
        flip: bool = False,
        dequantize: bool = False,
    ) -> Tensor:  # indices (B,) -> (B, C, H, W) float32
        """The chosen images as float32 on the CPU, ``x / 127.5 - 1``, so in [-1, 1].

        What is drawn for an image is a pure function of (seed, draw, its index) and, where a batch holds it
        twice, of the occurrence: neighbours, order, rank and the number of processes don't matter.

        Args:
            indices: (B,) positions in the store, from 0.
            augmentation: (seed, draw), the key of all that is drawn; required with ``flip`` or ``dequantize``.
            flip: mirror each image left to right with probability 1/2.
            dequantize: add U(0, 1/128) to each pixel, in 65,536 steps, after scaling; values then reach 1 + 1/128.

        Raises:
            DataError: if a draw is asked for without ``augmentation``, or an index isn't in the store.
        """
        rows = torch.as_tensor(indices, dtype=torch.int64)
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise DataError(
                f"ImageStore.batch: indices reach from {rows.min()} to {rows.max()}; give 0 ... {len(self) - 1}."
            )
        chosen = self.images[rows]
        if not (flip or dequantize):
            return _scaled(chosen)
        if augmentation is None:
            raise DataError(
                f"ImageStore.batch({flip=}, {dequantize=}) draws, so it needs a key: pass augmentation=(seed, draw)."
            )
        # The first word is the flip's, whether or not there is noise; of the others each serves four values.
        values = math.prod(self.image_shape)
        words = image_words(*augmentation, rows.tolist(), 1 + (math.ceil(values / 4) if dequantize else 0))
        if flip:
            pixels, mirrored = chosen.numpy(), words[:, 0] >> np.uint64(63) == 1
            pixels[mirrored] = pixels[mirrored][..., ::-1]  # numpy mirrors bytes in a quarter of torch's time
        batch = _scaled(chosen)
        if dequantize:
            steps = words[:, 1:].view(np.uint16)[:, :values]  # each uniform in 0 ... 65535
            noise = np.multiply(steps, np.float32(DEQUANTISATION_WIDTH / 2**16), dtype=np.float32)
            batch += torch.from_numpy(noise).view(batch.shape)
        return batch


def _scaled(images: Tensor) -> Tensor:  # uint8 -> float32 in [-1, 1]
    return images.to(torch.float32).div_(127.5).sub_(1)
