"""The decoded images of a run, and how to make a batch of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from cs_gan.data.augmentation import augmented, positions, scaled
from cs_gan.data.memory import allocate
from cs_gan.data.names import some_of
from cs_gan.errors import DataError
from cs_gan.randomness import derive_seed

MAX_CLASSES = 2**16
"""If classes have no names, labels of this size or above count as an error."""
_COPIED = 1024  # images per chunk, so that a mapped store isn't loaded into memory at once


@dataclass(frozen=True, eq=False)
class ImageStore:
    """Images decoded once, as uint8 on the CPU.

    Attributes:
        images: (n, C, H, W) uint8, in memory or memory-mapped.
        labels: (n,) int64 class numbers, or None if the data has no classes.
        name: the data set's name, such as ``"cifar10"``.
        description: one line for logs and reports.
        split: the split of the data; ``"all"`` if it isn't split.
        preparation: crop, resize and channels, in words; part of the fingerprint.
        class_names: a name for each class, by number; by default the numbers up to the largest label. Empty without
            labels.
        empty_classes: class folders without images, which :func:`~cs_gan.data.labelled.labelled` rejects.
        remark: what the description says about taken, scaled and left out images, with a comma before; parts of the
            store say it too.
    """

    images: Tensor
    labels: Tensor | None
    name: str
    description: str
    split: str = "all"
    preparation: str = "as stored"
    class_names: tuple[str, ...] = ()
    empty_classes: tuple[str, ...] = ()
    remark: str = ""

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if self.images.dtype != torch.uint8 or len(shape) != 4 or 0 in shape:
            raise DataError(
                f"ImageStore(images={self.images.dtype} of shape {shape}): images must be uint8 (n, C, H, W), none "
                "of them 0."
            )
        names = () if self.labels is None else checked_names(self.labels, shape[0], self.class_names)
        object.__setattr__(self, "class_names", names)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """The number of classes, including those without an image; 0 without labels."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def fits(self, device: torch.device) -> bool:
        """Whether the images should be on a GPU: they need at most a quarter of its free memory and aren't mapped."""
        if device.type != "cuda" or self.images.is_shared():
            return False
        free, _ = torch.cuda.mem_get_info(device)
        return self.images.nbytes <= free / 4

    def taken(self, rows: Tensor, split: str, what: str) -> ImageStore:  # rows (m,) int64
        """A copy of the images at ``rows``, as a split of that name; ``what`` describes them."""
        images, mapped = allocate((len(rows), *self.image_shape))
        for start in range(0, len(rows), _COPIED):
            images[start : start + _COPIED] = self.images[rows[start : start + _COPIED]]
        labels = None if self.labels is None else self.labels[rows]
        description = describe(self.name, what + self.remark, images, mapped, self.class_names, labels)
        return replace(self, images=images, labels=labels, split=split, description=description)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of a SHA-256 over name, split, preparation, shape and every pixel.

        Two stores have the same fingerprint only if they have the same images, prepared in the same way, in the same
        order. So it can be the key of a cache of reference statistics. It is computed on first use, at a few hundred
        MiB per second.
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

        The random augmentation of an image depends only on (seed, draw, its index) and, if a batch contains it twice,
        on the occurrence. It does not depend on neighbours, order, rank or the number of processes.

        Args:
            indices: (B,) positions in the store, from 0.
            augmentation: (seed, draw), the key of all random draws; required with ``flip``, ``crop`` or
                ``dequantize``.
            flip: mirror each image left to right with probability 1/2.
            crop: pad each side by this many black pixels, -1 in the result, and cut out the old size at one of the
                ``(2 crop + 1)^2`` positions, all equally likely.
            dequantize: add U(0, 1/128) to each pixel, in 65,536 steps, after scaling; values then reach 1 + 1/128.

        Raises:
            DataError: if ``crop`` is negative, a draw is asked for without ``augmentation``, or an index is not in the
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


def checked_names(labels: Tensor, n: int, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the classes of ``n`` images, by default their numbers. DataError if the labels don't fit them."""
    if labels.shape != (n,):
        raise DataError(f"ImageStore has {n} images but labels of shape {tuple(labels.shape)}.")
    if labels.dtype != torch.int64:
        raise DataError(f"ImageStore's labels are {labels.dtype}: give class numbers as int64, with labels.long().")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"ImageStore's class_names contain {twice!r} twice. Give each class its own name.")
    count = len(names) or min(max(int(labels.max()) + 1, 1), MAX_CLASSES)
    wrong = ((labels < 0) | (labels >= count)).nonzero()
    if len(wrong):
        i = int(wrong[0])
        raise DataError(
            f"Labels out of range: image {i} has label {int(labels[i])} ({len(wrong):,} such of {n:,}), but the "
            f"{count} classes are 0 ... {count - 1}. Correct the labels, or give all classes a name."
        )
    return names or tuple(map(str, range(count)))


def describe(
    name: str, what: str, images: Tensor, mapped: bool, classes: Sequence[str] = (), labels: Tensor | None = None
) -> str:
    """A store's description: name, split, count, shape, where the images are, their classes, and which have none."""
    few = ", ".join(f"{each[:28]}..." if len(each) > 31 else each for each in classes[:3])
    class_text = f", {len(classes):,} classes ({few}{', ...' if len(classes) > 3 else ''})" if classes else ""
    if labels is not None and (unused := sorted(set(range(len(classes))) - set(labels.tolist()))):
        class_text += f", no image of {some_of([classes[label] for label in unused], most=3)}"
    mebibytes = images.numel() / 2**20
    return (
        f"{name} ({what}): {len(images):,} images, {'x'.join(map(str, images.shape[1:]))}, "
        f"{mebibytes:,.{0 if mebibytes >= 10 else 1}f} MiB {'in a mapped file' if mapped else 'in memory'}{class_text}"
    )
