"""Images that are not decoded yet: which of them are used is decided first, and only those are decoded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cs_gan.data.decode import decode_images
from cs_gan.data.preparation import Preparation
from cs_gan.data.sources import ImageSource
from cs_gan.data.store import ImageStore, checked_names, describe


@dataclass(frozen=True, eq=False)
class UndecodedImages:
    """Pictures of a source, in the order of ``rows``. Who opens them closes them.

    Attributes:
        source: where the pictures are.
        prepare: what is done to each.
        rows: (n,) int64 positions in the source.
        labels: (n,) int64 class numbers, or None if the data has no classes.
        name, split, class_names: as of :class:`~cs_gan.data.store.ImageStore`.
        what: which pictures of the source these are, for the description.
    """

    source: ImageSource
    prepare: Preparation
    rows: Tensor
    labels: Tensor | None
    name: str
    split: str
    class_names: tuple[str, ...]
    what: str

    @classmethod
    def of(cls, source: ImageSource, name: str, prepare: Preparation) -> UndecodedImages:
        """All pictures of ``source``. DataError for labels that don't fit its classes."""
        n, labels = len(source), None if source.labels is None else torch.tensor(source.labels)
        names = () if labels is None else checked_names(labels, n, tuple(source.classes))
        return cls(source, prepare, torch.arange(n), labels, name, source.split, names, source.split)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_classes(self) -> int:
        """The number of classes, including those without an image; 0 without labels."""
        return len(self.class_names)

    @property
    def empty_classes(self) -> tuple[str, ...]:
        """Class folders without images."""
        return tuple(self.source.empty)

    @property
    def description(self) -> str:
        """One line for errors."""
        return f"{self.name} ({self.what}{self.source.remark}): {len(self):,} images"

    def taken(self, rows: Tensor, split: str, what: str) -> UndecodedImages:  # rows (m,) int64
        """The pictures at ``rows`` of these, as a split of that name; ``what`` describes them."""
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, rows=self.rows[rows], labels=labels, split=split, what=what)

    def decoded(self, *, progress: bool = False) -> ImageStore:
        """Decode them; errors are those of :func:`~cs_gan.data.decode.decode_images`."""
        images, mapped, seen = decode_images(self.source, self.rows.tolist(), self.prepare, progress=progress)
        remark = self.source.remark + seen
        return ImageStore(
            images,
            self.labels,
            self.name,
            describe(self.name, self.what + remark, images, mapped, self.class_names, self.labels),
            self.split,
            str(self.prepare),
            self.class_names,
            self.empty_classes,
            remark,
        )

    def close(self) -> None:
        """Close the source."""
        self.source.close()
