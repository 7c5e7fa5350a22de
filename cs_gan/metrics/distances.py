"""Which points of two clouds are in each other's neighbourhoods, exact wherever the clouds are.

``torch.cdist`` takes |x|^2 + |y|^2 - 2 x.y by a matrix product from 26 rows on. In float32, far from the origin, that
is mostly rounding. Taking the differences themselves costs 24 times as much (10,000 by 10,000 points of 2,048 features
on two cores: 190 s). So the product is in float64, of points around their centre, which costs half as much again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

ROWS = 500  # 40 MB of distances at a time
# Squared distances that differ by less than this share of |x|^2 + |y|^2 count as equal. Rounding is below 1e-14 for
# 2,048 features; that of float32 features themselves is about 1e-7 of their length. So copies of an image tie exactly.
TIE = 1e-12


class Cloud(NamedTuple):
    """Points (n, d) in float64 around the centre, and their squared lengths (n,)."""

    points: Tensor
    lengths: Tensor

    def parts(self) -> Iterator[tuple[slice, Cloud]]:
        """Parts of at most ROWS points, with their place."""
        for start in range(0, len(self.points), ROWS):
            place = slice(start, start + ROWS)
            yield place, Cloud(self.points[place], self.lengths[place])


def clouds(first: Tensor, second: Tensor) -> tuple[Cloud, Cloud]:  # (n, d), (m, d)
    """Two sets of points as clouds around the mean of the second."""
    centre = second.mean(0, dtype=torch.float64)
    centred = [points.double() - centre for points in (first, second)]
    first_cloud, second_cloud = (Cloud(points, points.square().sum(1)) for points in centred)
    return first_cloud, second_cloud


def squared_distances(first: Cloud, second: Cloud, tie: float = 0.0) -> Tensor:  # (n, m)
    """|x - y|^2 plus the share ``tie`` of |x|^2 + |y|^2."""
    lengths = first.lengths[:, None] + second.lengths
    return torch.addmm(lengths, first.points, second.points.T, beta=1 + tie, alpha=-2)


def squared_radii(cloud: Cloud, neighbour: int) -> Tensor:  # (n,)
    """The squared distance of each point to its k-th nearest other point."""
    distances = [
        squared_distances(part, cloud).topk(neighbour + 1, largest=False).values[:, -1]  # the first is the point itself
        for _, part in cloud.parts()
    ]
    return torch.cat(distances)
