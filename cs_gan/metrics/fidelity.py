"""The arithmetic of Fréchet distance, Inception Score and kernel distance, in torch-fidelity's order of operations.

The results are the same bits as torch-fidelity's. It isn't imported for them, because that takes as long as torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

Array = npt.NDArray[Any]


def frechet(first: Mapping[str, Array], second: Mapping[str, Array]) -> float:
    """|mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), from mu (d,) and sigma (d, d) of each.

    The last trace is the sum of the roots of the product's eigenvalues.
    """
    distance = first["mu"] - second["mu"]
    eigenvalues = np.linalg.eigvals(first["sigma"].dot(second["sigma"])).astype("complex128")
    traces = distance.dot(distance) + np.trace(first["sigma"]) + np.trace(second["sigma"])
    return float(traces - 2 * np.sum(np.sqrt(eigenvalues).real))


def split_inception_scores(logits: Tensor, splits: int, seed: int) -> tuple[float, float]:  # (n, classes)
    """Mean and standard deviation of exp(E KL(p(y|x) || p(y))) over splits of shuffled samples, in float64."""
    count = len(logits)
    logits = logits[np.random.RandomState(seed).permutation(count), :].double()
    p, log_p = logits.softmax(dim=1), logits.log_softmax(dim=1)
    scores = []
    for i in range(splits):
        part = slice(i * count // splits, (i + 1) * count // splits)
        divergences = p[part] * (log_p[part] - p[part].mean(dim=0, keepdim=True).log())
        scores.append(divergences.sum(dim=1).mean().exp().item())
    return float(np.mean(scores)), float(np.std(scores))


def subset_kernel_distances(
    generated: Array, real: Array, subsets: int, size: int, seed: int
) -> tuple[float, float]:  # (n, d), (m, d)
    """Mean and standard deviation of the squared MMD over random subsets of ``size`` samples of each."""
    draws, distances = np.random.RandomState(seed), np.zeros(subsets)
    for i in range(subsets):
        x = generated[draws.choice(len(generated), size, replace=False)]
        y = real[draws.choice(len(real), size, replace=False)]
        distances[i] = _squared_mmd(_kernel(x, x), _kernel(x, y), _kernel(y, y))
    return float(np.mean(distances)), float(np.std(distances))


def _kernel(x: Array, y: Array) -> Array:  # (m, d), (m, d) -> (m, m)
    """(x.y / d + 1)^3."""
    kernel: Array = (np.matmul(x, y.T) * (1.0 / x.shape[1]) + 1) ** 3
    return kernel


def _squared_mmd(xx: Array, xy: Array, yy: Array) -> Any:  # (m, m) each
    """The unbiased estimate: the diagonals of xx and yy don't count."""
    m = len(xx)
    within = [(kernel.sum(axis=1) - np.diagonal(kernel)).sum() for kernel in (xx, yy)]
    return (within[0] + within[1]) / (m * (m - 1)) - 2 * xy.sum(axis=0).sum() / (m * m)
