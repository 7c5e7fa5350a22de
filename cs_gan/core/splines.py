"""A spline fit and its evaluation as one matrix: pure functions on float64 arrays.

For fixed nodes and points, every interpolant here is linear in the values it fits::

    values at points = M @ values at nodes          M is (points, nodes)

so column j of M is the interpolant of the j-th unit vector. Rows of M sum to 1, because each kind
reproduces constants. Points outside the nodes are extrapolated by the end piece.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import interpolate

from cs_gan.core.nodes import Array
from cs_gan.errors import CodeError


def spline_matrix(kind: str, nodes: Array, points: Array, smoothing: float = 0.0) -> Array:
    """The matrix that fits a ``kind`` spline at ``nodes`` and evaluates it at ``points``.

    Args:
        kind: a key of :data:`SPLINES`.
        nodes: (n,) strictly decreasing.
        points: (m,).
        smoothing: the weight lambda of the integrated squared second derivative, which ``smoothing``
            trades against the sum of squared residuals; 0 interpolates. Other kinds ignore it.

    Returns:
        (m, n) float64.

    Raises:
        CodeError: for an unknown kind or too few nodes for it.
    """
    if kind not in SPLINES:
        raise CodeError(f"spline={kind!r} is unknown: choose one of {', '.join(SPLINES)}.")
    least, fit = SPLINES[kind]
    if len(nodes) < least:
        raise CodeError(f"spline={kind!r} needs at least {least} nodes and got {len(nodes)}: use a larger batch.")
    order = nodes.argsort()  # scipy wants increasing nodes
    evaluate = fit(nodes[order], np.eye(len(nodes))[order], smoothing)
    return np.asarray(evaluate(points), dtype=np.float64)


Evaluate = Callable[[Array], Array]


def _natural(x: Array, y: Array, _: float) -> Evaluate:
    return interpolate.CubicSpline(x, y, bc_type="natural")


def _not_a_knot(x: Array, y: Array, _: float) -> Evaluate:
    return interpolate.CubicSpline(x, y, bc_type="not-a-knot")


def _linear(x: Array, y: Array, _: float) -> Evaluate:
    return interpolate.make_interp_spline(x, y, k=1)


def _quintic(x: Array, y: Array, _: float) -> Evaluate:
    # The natural spline of degree 2m - 1 = 5: derivatives m..2m-2 = 3, 4 vanish at both ends.
    flat = [(3, np.zeros(y.shape[1])), (4, np.zeros(y.shape[1]))]
    return interpolate.make_interp_spline(x, y, k=5, bc_type=(flat, flat))  # type: ignore[arg-type]


def _smoothing(x: Array, y: Array, smoothing: float) -> Evaluate:
    return interpolate.make_smoothing_spline(x, y, lam=smoothing)


def _berrut(x: Array, y: Array, _: float) -> Evaluate:
    # Berrut's first rational interpolant is the Floater-Hormann family at d = 0.
    return interpolate.FloaterHormannInterpolator(x, y, d=0)


# kind -> (fewest nodes it is defined for, fit)
SPLINES: dict[str, tuple[int, Callable[[Array, Array, float], Evaluate]]] = {
    "natural": (2, _natural),
    "linear": (2, _linear),
    "quintic": (3, _quintic),
    "not-a-knot": (2, _not_a_knot),
    "smoothing": (5, _smoothing),
    "berrut": (2, _berrut),
}
