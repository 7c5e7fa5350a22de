"""Two spirals: the classic problem in the plane for viewing a decision boundary."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cs_gan.errors import DataError
from cs_gan.randomness import stream


def two_spirals(
    n: int, *, noise: float = 0.03, turns: float = 1.5, seed: int = 0
) -> tuple[Tensor, Tensor]:  # -> (n, 2) float32, (n,) int64
    """Points on two arms that wind around the origin and are symmetric about it. Labels alternate between 0 and 1.

    An arm is ``r (cos 2 pi turns r, sin 2 pi turns r)``. The radius r is the root of a uniform number, so points are
    about as dense outside as inside. Lang and Witbrock's spirals ("Learning to tell two spirals apart", 1988)
    have three turns.

    Args:
        n: number of points, at least 2.
        noise: standard deviation of the Gaussian noise on both coordinates; the arms reach radius 1.
        turns: number of turns of an arm; neighbouring arms are ``1 / (2 turns)`` apart.
        seed: for all random draws.

    Raises:
        DataError: for impossible arguments.
    """
    if n < 2 or not 0 <= noise < math.inf or not 0 < turns < math.inf:
        raise DataError(
            f"two_spirals({n=}, {noise=}, {turns=}): n must be at least 2, noise at least 0 and turns above 0."
        )
    generator = stream(seed, "two spirals")
    radius = torch.rand(n, generator=generator, dtype=torch.float64).sqrt()
    labels = torch.arange(n) % 2
    angle = 2 * math.pi * turns * radius
    arm = torch.stack([angle.cos(), angle.sin()], 1) * (radius * (1 - 2 * labels))[:, None]
    drawn = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return (arm + noise * drawn).float(), labels
