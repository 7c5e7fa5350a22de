"""Which images a step sees: a pure function of (seed, draw, rank), so there is no loader state to save."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from cs_gan.errors import DataError
from cs_gan.randomness import stream


def batch_indices(
    n: int, batch_size: int, draw: int, *, seed: int, rank: int = 0, world_size: int = 1
) -> Tensor:  # -> (batch_size,) int64
    """Rank ``rank``'s share of the ``draw``-th global batch of an endless stream of shuffled epochs.

    An epoch has every image once. Draw ``d`` (from 0) takes the next ``batch_size * world_size`` indices, and each rank
    takes its ``batch_size`` of those. A batch can continue into the next epoch, so no image is dropped. Only in such a
    draw can an image occur twice.

    Args:
        n: images in the store, at least 1; it may be smaller than a batch.
        batch_size: images for one rank, at least 1.
        draw: number of batches before this one in the whole run.
        seed: the run's seed.
        rank: this process, 0 to ``world_size - 1``.
        world_size: number of processes.

    Raises:
        DataError: if ``n`` or ``batch_size`` is below 1, ``draw`` negative or ``rank`` out of range.
    """
    call = f"batch_indices({n=}, {batch_size=}, {draw=}, {rank=}, {world_size=})"
    if n < 1:
        raise DataError(f"{call}: there are no images to draw from. Load a data set with at least one.")
    if batch_size < 1 or draw < 0:
        raise DataError(f"{call}: batch_size must be at least 1 and draw at least 0.")
    if not 0 <= rank < world_size:
        raise DataError(f"{call}: rank must be in 0 ... world_size - 1.")
    position = (draw * world_size + rank) * batch_size
    end = position + batch_size
    pieces = []
    while position < end:
        epoch, start = divmod(position, n)
        stop = min(n, start + end - position)
        pieces.append(_permutation(n, epoch, seed)[start:stop])
        position += stop - start
    return torch.cat(pieces)  # a copy, to protect the cached permutation


def drawn(n: int, count: int, seed: int, labels: Tensor | None = None) -> Tensor:  # labels (n,) -> (count,) int64
    """The sorted indices of ``count`` of ``n`` images: a random choice by ``seed``, or all if ``n`` is not larger.

    With labels, all classes give equally many (up to one). A class with fewer images gives all of them. For the same
    seed, a smaller choice is part of a larger one.
    """
    if count >= n:
        return torch.arange(n)
    if labels is None:
        return torch.randperm(n, generator=stream(seed, "subset"))[:count].sort().values
    classes = int(labels.max()) + 1
    turn = torch.empty(n, dtype=torch.int64)  # images are taken in rounds, one of every class per round
    for label in range(classes):
        members = (labels == label).nonzero()[:, 0]
        turn[members[torch.randperm(len(members), generator=stream(seed, "subset", label))]] = torch.arange(
            len(members)
        )
    within = torch.randperm(
        classes, generator=stream(seed, "subset", "extra")
    ).argsort()  # the position of a class in a round
    return (turn * classes + within[labels]).argsort()[:count].sort().values


@lru_cache(maxsize=4)
def _permutation(n: int, epoch: int, seed: int) -> Tensor:  # -> (n,) int64
    return torch.randperm(n, generator=stream(seed, "epoch", epoch))
