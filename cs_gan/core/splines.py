"""Fitting a spline and evaluating it, as one matrix.

For fixed nodes and points, the values of a spline are linear in the values that it fits::

    values at points = M @ values at nodes          M is (points, nodes)

So column j of M is the spline through the j-th unit vector. Rows of M sum to 1, because every kind of spline reproduces
constants. Outside the nodes the first or last piece continues.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cs_gan.core.bands import Bands, linear, natural
from cs_gan.core.nodes import Array
from cs_gan.errors import CodeError


def spline_matrix(kind: str, nodes: Array, points: Array, smoothing: float = 0.0) -> Bands:
    """The matrix that fits a ``kind`` spline at ``nodes`` and evaluates it at ``points``.

    Args:
        kind: a key of :data:`SPLINES`.
        nodes: (n,) strictly decreasing.
        points: (m,).
        smoothing: for the kind ``smoothing``, the weight lambda of the integrated squared second derivative, which is
            added to the sum of squared residuals; 0 interpolates. Other kinds ignore it.

    Returns:
        (m, n) float64. ``natural`` and ``linear`` give bands, in milliseconds at any size.

    Raises:
        CodeError: for an unknown kind or too few nodes for it.
    """
    if kind not in SPLINES:
        raise CodeError(f"spline={kind!r} is unknown: choose one of {', '.join(SPLINES)}.")
    least, fit = SPLINES[kind]
    if len(nodes) < least:
        raise CodeError(f"spline={kind!r} needs at least {least} nodes and got {len(nodes)}: use a larger batch.")
    return fit(nodes, points, smoothing)


Fit = Callable[[Array, Array, float], Bands]


def _by_scipy(evaluate: Callable[[Array, Array, Array, float], Array]) -> Fit:
    """Fit splines to all unit vectors. The matrix is dense, and the time grows with the cube of the batch size.

    Each function imports scipy.interpolate only when it is called, because the import takes a third of a second.
    """

    def fit(nodes: Array, points: Array, smoothing: float) -> Bands:
        # scipy wants increasing nodes
        values = evaluate(nodes[::-1], np.eye(len(nodes))[::-1], points, smoothing)
        return Bands.of(np.asarray(values, dtype=np.float64))

    return fit


def _not_a_knot(x: Array, y: Array, points: Array, _: float) -> Array:
    from scipy.interpolate import CubicSpline

    return CubicSpline(x, y, bc_type="not-a-knot")(points)


def _quintic(x: Array, y: Array, points: Array, _: float) -> Array:
    from scipy.interpolate import make_interp_spline

    # The natural spline of degree 2m - 1 = 5: derivatives m..2m-2 = 3, 4 vanish at both ends.
    flat = [(3, np.zeros(y.shape[1])), (4, np.zeros(y.shape[1]))]
    return make_interp_spline(x, y, k=5, bc_type=(flat, flat))(points)  # type: ignore[arg-type]


def _smoothing(x: Array, y: Array, points: Array, smoothing: float) -> Array:
    from scipy.interpolate import make_smoothing_spline

    return make_smoothing_spline(x, y, lam=smoothing)(points)


def _berrut(x: Array, y: Array, points: Array, _: float) -> Array:
    from scipy.interpolate import FloaterHormannInterpolator

    # Berrut's first rational interpolant is the Floater-Hormann family at d = 0.
    return FloaterHormannInterpolator(x, y, d=0)(points)


# kind -> (smallest number of nodes, fit). Bands need increasing nodes too; negated nodes increase in the same order.
SPLINES: dict[str, tuple[int, Fit]] = {
    "natural": (2, lambda nodes, points, _: natural(-nodes, -points)),
    "linear": (2, lambda nodes, points, _: linear(-nodes, -points)),
    "quintic": (3, _by_scipy(_quintic)),
    "not-a-knot": (2, _by_scipy(_not_a_knot)),
    "smoothing": (5, _by_scipy(_smoothing)),
    "berrut": (2, _by_scipy(_berrut)),
}
