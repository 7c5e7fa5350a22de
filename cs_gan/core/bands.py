"""Band matrices. A cardinal spline falls by about a factor of 4 from node to node, so few entries in a row matter.

::

    E (N, K) =  [x x x      ]   row n: weights[n], starting at column start[n]; starts never decrease
                [  x x x    ]
                [      x x x]

:func:`linear` and :func:`natural` build them in O(points + nodes) steps of numpy, without the dense matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cs_gan.core.nodes import Array

# A value m nodes away changes the second derivatives of a natural spline less than 2^-m times as much as a value next
# to them (3.7^-m for uniform nodes). Below this bound a change is far smaller than float64's rounding errors.
NEGLIGIBLE = 1e-24


@dataclass(frozen=True, eq=False)
class Bands:
    """A matrix (rows, columns), stored as one window of each row. For a dense matrix the window is the whole row.

    Attributes:
        start: (rows,) first column of each window, never decreasing.
        weights: (rows, width) float64.
        columns: number of columns of the matrix.
    """

    start: NDArray[np.int64]
    weights: Array
    columns: int

    @classmethod
    def of(cls, matrix: Array) -> Bands:
        """Store a dense matrix."""
        return cls(np.zeros(len(matrix), dtype=np.int64), matrix, matrix.shape[1])

    @property
    def narrow(self) -> bool:
        """Whether windows are narrower than the matrix."""
        return bool(self.weights.shape[1] < self.columns)

    def dense(self) -> Array:  # (rows, columns)
        """The whole matrix."""
        return self._part(0, len(self.start), 0, self.columns)

    def blocks(self, height: int, tolerance: float, transposed: bool = False) -> Iterator[Block]:
        """The matrix, or its transpose, as dense blocks of ``height`` rows each.

        A block spans the columns in which one of its rows exceeds ``tolerance``.
        """
        end = self.start + self.weights.shape[1]
        rows = self.columns if transposed else len(self.start)
        for top in range(0, rows, height):
            bottom = min(top + height, rows)
            if transposed:  # low..high are the rows whose windows overlap the columns top..bottom
                low = min(int(np.searchsorted(end, top, "right")), len(end) - 1)
                high = max(int(np.searchsorted(self.start, bottom, "left")), low + 1)  # at least one, perhaps of zeros
                part = self._part(low, high, top, bottom).T
            else:
                low, high = int(self.start[top]), int(end[bottom - 1])
                part = self._part(top, bottom, low, high)
            nonzero = np.flatnonzero((np.abs(part) > tolerance).any(axis=0))
            first, last = (int(nonzero[0]), int(nonzero[-1]) + 1) if len(nonzero) else (0, 1)
            yield Block((top, bottom, low + first, low + last), part[:, first:last])

    def _part(self, top: int, bottom: int, low: int, high: int) -> Array:
        """Rows top..bottom, columns low..high, dense."""
        width = self.weights.shape[1]
        start = self.start[top:bottom]
        # Windows can extend beyond these columns; the last line cuts them off.
        left, right = min(low, start[0]), max(high, start[-1] + width)
        part = np.zeros((bottom - top, right - left))
        np.put_along_axis(part, start[:, None] - left + np.arange(width), self.weights[top:bottom], axis=1)
        return part[:, low - left : high - left]


@dataclass(frozen=True, eq=False)
class Block:
    """Rows top..bottom of a matrix. Outside columns low..high they are 0."""

    window: tuple[int, int, int, int]  # top, bottom, low, high
    weights: Array  # (bottom - top, high - low)


def linear(nodes: Array, points: Array) -> Bands:  # (n,), (m,) -> (m, n)
    """Piecewise linear interpolation at increasing nodes, n >= 2."""
    piece, left, right, width = _pieces(nodes, points)
    return Bands(piece, np.stack([right / width, left / width], axis=1), len(nodes))


def natural(nodes: Array, points: Array) -> Bands:  # (n,), (m,) -> (m, n)
    """The natural cubic spline at increasing nodes, n >= 2.

    At distances a and b from the neighbouring nodes j and j + 1, with h = a + b and second derivatives M, it is
    s = (b y_j + a y_{j+1}) / h - a b ((b + h) M_j + (a + h) M_{j+1}) / 6 h.
    """
    piece, a, b, h = _pieces(nodes, points)
    M = _second_derivatives(nodes)  # row i starts at column i - reach
    reach = M.shape[1] // 2
    weights = np.zeros((len(points), 2 * reach + 2))  # rows start at column piece - reach
    weights[:, :-1] -= (a * b * (b + h) / (6 * h))[:, None] * M[piece]
    weights[:, 1:] -= (a * b * (a + h) / (6 * h))[:, None] * M[piece + 1]
    weights[:, reach] += b / h
    weights[:, reach + 1] += a / h
    return _inside(piece - reach, weights, len(nodes))


def _pieces(nodes: Array, points: Array) -> tuple[NDArray[np.int64], Array, Array, Array]:
    """For each point: its piece, the distances to both ends of the piece, and its length. End pieces are extended."""
    piece = np.clip(np.searchsorted(nodes, points, side="right") - 1, 0, len(nodes) - 2)
    return piece, points - nodes[piece], nodes[piece + 1] - points, np.diff(nodes)[piece]


def _second_derivatives(nodes: Array) -> Array:  # (n,) -> (n, 2 reach + 1)
    """The second derivatives at the nodes, as weights of the values there: T^-1 R. Row i starts at column i - reach.

    T M = R y means h_{i-1} M_{i-1} + 2 (h_{i-1} + h_i) M_i + h_i M_{i+1} = 6 (slope_i - slope_{i-1}), and M = 0 at
    both ends. Neighbours in a row of T^-1 have the ratios of T's pivots. So each entry is a product from the diagonal
    outwards, exact up to a few rounding errors.
    """
    h, n = np.diff(nodes), len(nodes)
    diagonal, left, right = _tridiagonal_inverse(h)
    before, after = [np.ones(n)], [np.ones(n)]  # entries at distance 0, 1, 2, ..., divided by the diagonal's
    for m in range(1, n):
        outwards = np.zeros((2, n))
        outwards[0, m:] = before[-1][m:] * left[:-m]
        outwards[1, :-m] = after[-1][:-m] * right[m:]
        if np.abs(outwards).max() <= NEGLIGIBLE:
            break
        before.append(outwards[0])
        after.append(outwards[1])
    inverse = np.stack([*before[:0:-1], *after], axis=1) * diagonal[:, None]
    reach = len(before)
    # R takes 6 times the differences of slopes; so do these two lines, along the columns of T^-1.
    column = np.arange(n)[:, None] + np.arange(-reach, reach)
    slopes = np.diff(np.pad(inverse, ((0, 0), (1, 1)))) / h[column.clip(0, n - 2)]
    derivatives: Array = 6 * np.diff(np.pad(slopes, ((0, 0), (1, 1))))
    return derivatives


def _tridiagonal_inverse(h: Array) -> tuple[Array, Array, Array]:  # (n - 1,) -> 3 x (n,)
    """T^-1's diagonal and, for each column, the ratios of an entry left and right of it to its inner neighbour.

    All are 0 at the end nodes, which are not in T.
    """
    n = len(h) + 1
    forward, backward = _pivots(h.tolist()), _pivots(h[::-1].tolist())[::-1]
    diagonal, left, right = np.zeros((3, n))
    inner = slice(1, n - 1)
    diagonal[inner] = 1 / (forward + backward - 2 * (h[:-1] + h[1:]))
    left[inner], right[inner] = -h[1:] / forward, -h[:-1] / backward
    return diagonal, left, right


def _pivots(h: list[float]) -> Array:  # n - 1 -> (n - 2,)
    """The pivots of T, eliminated from the top."""
    pivots: list[float] = []
    for above, below in pairwise(h):
        pivots.append(2 * (above + below) - (above**2 / pivots[-1] if pivots else 0.0))
    return np.array(pivots)


def _inside(start: NDArray[np.int64], weights: Array, columns: int) -> Bands:
    """Move windows that extend beyond the matrix into it. Their weights outside are 0."""
    width = min(weights.shape[1], columns)
    moved = start.clip(0, columns - width)
    positions = (moved - start)[:, None] + np.arange(width)
    inside = np.take_along_axis(weights, positions.clip(0, weights.shape[1] - 1), axis=1)
    return Bands(moved, np.where((positions >= 0) & (positions < weights.shape[1]), inside, 0.0), columns)
