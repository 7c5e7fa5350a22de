"""How smooth a trained network is, in numbers: what a picture of its decision boundary shows.

All are measured in evaluation mode, in the dtype of the points, under any autocast. They leave no gradients on
parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cs_gan.errors import BatchError, ConfigError
from cs_gan.restore import evaluation_mode

Array = npt.NDArray[np.float64]


class Boundary(NamedTuple):
    """The decision boundary in the plane: the set where two classes are equally likely.

    Attributes:
        length: in units of the plane. It equals the total variation of the decision (0 or 1) over the square.
        curvature: the mean of |curvature| along it, in units of 1 / length; nan without a boundary.
    """

    length: float
    curvature: float


def jacobian_norm(model: nn.Module, x: Tensor) -> float:  # (K, *F)
    """The mean over samples of ||d logits / d x||_F, exact, with one backward pass per class.

    Raises:
        BatchError: for integer samples, or logits that aren't (K, classes).
    """
    _check_samples("jacobian_norm", x)
    with _measuring(model, x.device), torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = _logits(model, x)
        squares = torch.zeros(len(x), dtype=logits.dtype, device=x.device)
        for number, column in enumerate(logits.unbind(1), 1):
            (gradient,) = torch.autograd.grad(column.sum(), x, retain_graph=number < logits.shape[1])
            squares += gradient.flatten(1).square().sum(1)
        return float(squares.sqrt().mean())


def segment_energy(
    model: nn.Module, x: Tensor, generator: torch.Generator, *, segments: int = 256, points: int = 33
) -> float:  # (K, *F)
    """How much the logits bend between samples: the mean over random segments of the integral of ||f''(t)||^2 dt.

    A segment joins two samples drawn from ``x``, f(t) are the logits at fraction t in [0, 1] of it. f'' is the second
    difference at ``points`` evenly spaced points. It is 0 for a network that is affine between samples. For logits
    with kinks (ReLU) the scale depends on ``points``, so compare only values with the same number.

    Raises:
        BatchError: for fewer than two samples, integer samples, or logits that aren't (K, classes).
        ConfigError: for no segments or fewer than three points.
    """
    _check_samples("segment_energy", x)
    if len(x) < 2 or segments < 1 or points < 3:
        raise ConfigError(
            f"segment_energy({len(x)} samples, {segments=}, {points=}): give at least 2 samples, 1 segment, 3 points."
        )
    ends = torch.stack([torch.randperm(len(x), generator=generator)[:2] for _ in range(segments)]).to(x.device)
    shares = torch.linspace(0, 1, points, dtype=x.dtype, device=x.device).view(-1, *[1] * (x.dim() - 1))
    total = 0.0
    with _measuring(model, x.device), torch.no_grad():
        for start, end in ends.tolist():
            logits = _logits(model, torch.lerp(x[start], x[end], shares))
            bend = logits.diff(n=2, dim=0) * (points - 1) ** 2  # f'' at the inner points
            total += float(bend.square().sum()) / (points - 1)
    return total / segments


def decision_field(model: nn.Module, extent: float, resolution: int) -> Array:  # -> (R, R)
    """The first logit minus the second on an even grid over [-extent, extent]^2; rows are the second coordinate.

    Raises:
        BatchError: if the network doesn't take (K, 2) and give (K, 2).
    """
    axis = torch.linspace(-extent, extent, resolution)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(-1, 2)
    with _measuring(model, grid.device), torch.no_grad():
        logits = torch.cat([_logits(model, part) for part in torch.split(grid, 8192)])
    if logits.shape[1] != 2:
        raise BatchError(f"the model gave {logits.shape[1]} logits: a field in the plane needs two classes.")
    field: Array = (logits[:, 0] - logits[:, 1]).view(resolution, resolution).double().numpy()
    return field


def boundary(field: Array, extent: float, step: float = 0.02) -> Boundary:  # (R, R)
    """Length and mean |curvature| of the zero set of a field over [-extent, extent]^2.

    Linear interpolation gives the zero set as polylines. Each polyline is resampled with vertices ``step`` apart. The
    curvature is its total turning angle divided by its length. With kinks (ReLU) this is the curvature at that scale.
    A circle of radius r gives 2 pi r and 1 / r.
    """
    from contourpy import contour_generator  # comes with matplotlib

    axis = np.linspace(-extent, extent, len(field))
    length = turning = 0.0
    for found in contour_generator(axis, axis, field).lines(0.0):
        line = np.asarray(found, dtype=np.float64)
        vertices = _even(line, step)
        edges = np.diff(vertices, axis=0)
        if np.array_equal(line[0], line[-1]) and len(edges) > 1:  # a closed loop also turns where it closes
            edges = np.concatenate([edges, edges[:1]])
        angles = np.arctan2(edges[:, 1], edges[:, 0])
        # The angle from one direction to the next is at most half a turn.
        turning += float(np.abs((np.diff(angles) + math.pi) % (2 * math.pi) - math.pi).sum())
        length += float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())
    return Boundary(length, turning / length if length else math.nan)


def _even(line: Array, step: float) -> Array:  # (n, 2) -> (m, 2)
    """The polyline with vertices ``step`` apart, adjusted to divide its length."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.linspace(0, along[-1], max(2, round(along[-1] / step) + 1))
    return np.stack([np.interp(at, along, line[:, 0]), np.interp(at, along, line[:, 1])], 1)


@contextmanager
def _measuring(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode without autocast: differences of logits rounded to bfloat16 would be mostly rounding."""
    with evaluation_mode(model), torch.autocast(device.type, enabled=False):
        yield


def _logits(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    logits = model(x)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise BatchError(f"the model gave {given} for {len(x)} samples: its logits must be (K, classes).")
    return logits


def _check_samples(call: str, x: Tensor) -> None:
    if not x.is_floating_point():
        raise BatchError(f"{call} got samples of {x.dtype}: give floating-point ones, as the network expects.")
