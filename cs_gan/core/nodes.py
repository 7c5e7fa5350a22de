"""Node families: the positions of data samples (alpha) and coded samples (beta) in [-1, 1].

The paper uses Chebyshev points of the first kind for data and of the second kind for coded samples (arXiv 2510.00253,
section 3). In every family here, data nodes are inside the interval and coded nodes include both ends, as in the paper.
Nodes are strictly decreasing float64 arrays, as cosines are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cs_gan.errors import CodeError

Array = NDArray[np.float64]

NODE_FAMILIES = ("chebyshev", "uniform", "random")


def data_nodes(family: str, count: int, seed: int = 0) -> Array:  # (count,)
    """The ``count`` data nodes alpha_1 > ... > alpha_K. Only ``random`` uses ``seed``.

    Raises:
        CodeError: for an unknown family.
    """
    return np.cos(_angles(family, (np.arange(count) + 0.5) / count, 1 / count, (seed, 0)))


def coded_nodes(family: str, count: int, seed: int = 0) -> Array:  # (count,)
    """The ``count`` coded nodes beta_1 = 1 > ... > beta_N = -1; needs ``count`` of at least 2.

    Raises:
        CodeError: for an unknown family.
    """
    return np.cos(_angles(family, np.arange(count) / (count - 1), 1 / (count - 1), (seed, 1)))


def _angles(family: str, fractions: Array, spacing: float, seed: tuple[int, int]) -> Array:
    """Angles in [0, pi] from evenly spaced fractions in [0, 1]."""
    if family == "chebyshev":
        return np.pi * fractions
    if family == "uniform":
        return np.arccos(1 - 2 * fractions)
    if family == "random":
        # Independent draws can be almost equal, and splines would then take huge values. Moving each Chebyshev point
        # by at most a quarter of the spacing keeps neighbours at least half a spacing apart.
        jitter = np.random.default_rng(seed).uniform(-0.25, 0.25, len(fractions)) * spacing
        inside = (fractions > 0) & (fractions < 1)  # the ends stay, so nothing is extrapolated far
        return np.pi * (fractions + np.where(inside, jitter, 0.0))
    raise CodeError(f"nodes={family!r} is unknown: choose one of {', '.join(NODE_FAMILIES)}.")
