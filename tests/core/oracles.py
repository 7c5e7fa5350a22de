"""The method done the slow way: one spline per feature by scipy or by formula, one sample at a time."""

import numpy as np
import torch
from scipy import interpolate

from cs_gan import SplineCode

NODES = ("chebyshev", "uniform", "random")
SPLINES = ("natural", "linear", "quintic", "not-a-knot", "smoothing", "berrut")
DECODERS = ("spline", "zero-forcing")


def berrut(x, y, points):
    """Berrut's first rational interpolant by its formula: signs alternate along the nodes."""
    signs = (-1.0) ** np.arange(len(x))
    values = []
    for point in points:
        distance = point - x
        if (distance == 0).any():
            values.append(y[distance == 0][0])
        else:
            values.append((signs / distance * y).sum() / (signs / distance).sum())
    return np.array(values)


def evaluate_spline(kind, nodes, values, points, smoothing):
    """One scalar function: the spline through (nodes, values) at the points."""
    order = np.argsort(nodes)
    x, y = nodes[order], values[order]
    if kind == "natural":
        return interpolate.CubicSpline(x, y, bc_type=((2, 0.0), (2, 0.0)))(points)
    if kind == "not-a-knot":
        return interpolate.CubicSpline(x, y)(points)
    if kind == "linear":
        return interpolate.make_interp_spline(x, y, k=1)(points)
    if kind == "quintic":
        return interpolate.make_interp_spline(x, y, k=5, bc_type=([(3, 0.0), (4, 0.0)],) * 2)(points)
    if kind == "smoothing":
        return interpolate.make_smoothing_spline(x, y, lam=smoothing)(points)
    return berrut(x, y, points)


def naive_encode(code: SplineCode, x: torch.Tensor) -> torch.Tensor:
    """A loop over features; float64."""
    flat = x.detach().double().reshape(code.K, -1).numpy()
    columns = [evaluate_spline(code.spline, code.alpha, f, code.beta, code.smoothing) for f in flat.T]
    return torch.from_numpy(np.stack(columns, 1)).reshape(code.N, *x.shape[1:])


def naive_decode(code: SplineCode, y: torch.Tensor) -> torch.Tensor:
    """A loop over features; zero-forcing by least squares of least norm against the naive encoder."""
    flat = y.detach().double().reshape(code.N, -1).numpy()
    if code.decoder_kind == "zero-forcing":
        encoder = naive_encode(code, torch.eye(code.K)).numpy()
        decoded = np.linalg.lstsq(encoder, flat, rcond=None)[0]
    else:
        fit = [evaluate_spline(code.spline, code.beta, f, code.alpha, code.smoothing) for f in flat.T]
        decoded = np.stack(fit, 1)
    return torch.from_numpy(decoded).reshape(code.K, *y.shape[1:])


def naive_penalty(code: SplineCode, function, x: torch.Tensor) -> torch.Tensor:
    """The whole algorithm of the paper, the block called on one sample at a time."""
    each = lambda batch: torch.cat([function(sample[None]) for sample in batch])
    with torch.no_grad():
        return (naive_decode(code, each(naive_encode(code, x))) - each(x)).square().mean()
