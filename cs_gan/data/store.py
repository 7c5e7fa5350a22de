"""The decoded images of a run and how a batch is made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cs_gan.data.augmentation import augmented, positions, scaled
from cs_gan.errors import DataError
from cs_gan.randomness import derive_seed

MAX_CLASSES = 2**16
"""Labels from here on are taken for a mistake where the classes have no names."""


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
        class_names: a name for each class, by number; left out, the numbers up to the largest label. Empty without
            labels.
        empty_classes: class folders that hold no images, which :func:`~cs_gan.data.labelled.labelled` refuses.
    """

    images: Tensor
    labels: Tensor | None
    name: str
    description: str
    split: str = "all"
    preparation: str = "as stored"
    class_names: tuple[str, ...] = ()
    empty_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if self.images.dtype != torch.uint8 or len(shape) != 4 or 0 in shape:
            raise DataError(
                f"ImageStore(images={self.images.dtype} of shape {shape}): images must be uint8 (n, C, H, W), none "
                "of them 0."
            )
        names = () if self.labels is None else _checked_names(self.labels, shape[0], self.class_names)
        object.__setattr__(self, "class_names", names)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Classes that labels may name, whether or not an image has each; 0 without labels."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def fits(self, device: torch.device) -> bool:
        """Whether the images should lie on a GPU: they take at most a quarter of its free memory, and aren't mapped."""
        if device.type != "cuda" or self.images.is_shared():  # type: ignore[no-untyped-call]
            return False
        free, _ = torch.cuda.mem_get_info(device)
        return self.images.nbytes <= free / 4

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
        crop: int = 0,
        dequantize: bool = False,
    ) -> Tensor:  # indices (B,) -> (B, C, H, W) float32
        """The chosen images as float32 on the CPU, ``x / 127.5 - 1``, so in [-1, 1].

        What is drawn for an image is a pure function of (seed, draw, its index) and, where a batch holds it
        twice, of the occurrence: neighbours, order, rank and the number of processes don't matter.

        Args:
            indices: (B,) positions in the store, from 0.
            augmentation: (seed, draw), the key of all that is drawn; required with ``flip``, ``crop`` or
                ``dequantize``.
            flip: mirror each image left to right with probability 1/2.
            crop: pad each side by this many black pixels, -1 in the result, and cut the old size out at random, all
                ``(2 crop + 1)^2`` places alike.
            dequantize: add U(0, 1/128) to each pixel, in 65,536 steps, after scaling; values then reach 1 + 1/128.

        Raises:
            DataError: if ``crop`` is negative, a draw is asked for without ``augmentation``, or an index isn't in the
                store.
        """
        rows = torch.as_tensor(indices, dtype=torch.int64)
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise DataError(
                f"ImageStore.batch: indices reach from {rows.min()} to {rows.max()}; give 0 ... {len(self) - 1}."
            )
        if crop < 0:
            raise DataError(f"ImageStore.batch({crop=}): give the pixels to pad by, or 0 for no random crop.")
        if not (flip or crop or dequantize):
            return scaled(self.images[rows])
        if augmentation is None:
            raise DataError(
                f"ImageStore.batch({flip=}, {crop=}, {dequantize=}) draws, so it needs a key: pass "
                "augmentation=(seed, draw)."
            )
        key = derive_seed(augmentation[0], "augmentation", augmentation[1])
        where = positions(rows.tolist()).to(self.images.device)
        return augmented(self.images, where, key, flip=flip, crop=crop, dequantize=dequantize)


def _checked_names(labels: Tensor, n: int, names: tuple[str, ...]) -> tuple[str, ...]:
    """The classes' names, made of numbers where none are given; DataError if the labels don't fit them."""
    if labels.shape != (n,):
        raise DataError(f"ImageStore has {n} images but labels of shape {tuple(labels.shape)}.")
    if labels.dtype != torch.int64:
        raise DataError(f"ImageStore's labels are {labels.dtype}: give class numbers as int64, with labels.long().")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"ImageStore's class_names hold {twice!r} twice. Give each class a name of its own.")
    count = len(names) or min(max(int(labels.max()) + 1, 1), MAX_CLASSES)
    wrong = ((labels < 0) | (labels >= count)).nonzero()
    if len(wrong):
        i = int(wrong[0])
        raise DataError(
            f"Labels out of range: image {i} has label {int(labels[i])} ({len(wrong):,} such of {n:,}), but the "
            f"{count} classes are 0 ... {count - 1}. Correct the labels, or give all classes a name."
        )
    return names or tuple(map(str, range(count)))


def describe(name: str, what: str, images: Tensor, mapped: bool) -> str:
    """A store's description: name, split, count, shape, and where the images lie."""
    mebibytes = images.numel() / 2**20
    return (
        f"{name} ({what}): {len(images):,} images, {'x'.join(map(str, images.shape[1:]))}, "
        f"{mebibytes:,.{0 if mebibytes >= 10 else 1}f} MiB {'in a mapped file' if mapped else 'in memory'}"
    )
