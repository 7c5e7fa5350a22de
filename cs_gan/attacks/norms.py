"""The perturbations that an attacker may use: a norm ball, clamped to the range of pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cs_gan.errors import AttackError

NORMS = ("linf", "l2")


def eps_from_pixels(eps: float, low: float = -1.0, high: float = 1.0) -> float:
    """Convert an eps for pixels in [0, 1] to images in [low, high]: 8/255 -> 16/255 for [-1, 1]."""
    return eps * (high - low)


@dataclass(frozen=True)
class Ball:
    """All images within ``eps`` of the clean ones, per sample, and within [low, high].

    Args:
        norm: ``linf`` or ``l2``, per sample.
        eps: radius in the units of the images. Ours are in [-1, 1]: 8/255 on pixels in [0, 1] is 16/255 here
            (:func:`eps_from_pixels`).
        low, high: the range of valid inputs; infinite for inputs without one.

    Raises:
        AttackError: for an unknown norm, eps below 0 or NaN, or an empty range.
    """

    norm: str
    eps: float
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise AttackError(f"norm={self.norm!r} is unknown: choose one of {', '.join(NORMS)}.")
        if not 0 <= self.eps < math.inf:
            raise AttackError(f"eps={self.eps}: give a radius of 0 or more, in the units of the images.")
        if not self.low < self.high:
            raise AttackError(f"low={self.low}, high={self.high}: the range of valid inputs is empty.")

    def project(self, moved: Tensor, images: Tensor) -> Tensor:  # (K, *F), (K, *F) -> (K, *F)
        """The point of the ball nearest to ``moved``, then clamped (which stays in the ball for images in range)."""
        delta = moved - images
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            delta = delta * (self.eps / _length(delta).clamp_min(self.eps))
        return (images + delta).clamp(self.low, self.high)

    def start(self, images: Tensor, generator: torch.Generator) -> Tensor:  # (K, *F) -> (K, *F)
        """Uniform in the ball, then clamped. Drawn on the CPU, so that draws don't depend on the device."""
        if self.norm == "linf":
            delta = 2 * torch.rand(images.shape, generator=generator, device="cpu", dtype=images.dtype) - 1
        else:
            direction = torch.randn(images.shape, generator=generator, device="cpu", dtype=images.dtype)
            radius = torch.rand(len(images), generator=generator, device="cpu", dtype=images.dtype)
            dimensions = max(1, math.prod(images.shape[1:]))
            delta = _unit(direction) * per_sample(radius ** (1 / dimensions), images)
        return (images + self.eps * delta.to(images.device)).clamp(self.low, self.high)

    def ascent(self, gradient: Tensor) -> Tensor:  # (K, *F) -> (K, *F)
        """The steepest direction of unit length in this norm; 0 if the gradient is 0."""
        return gradient.sign() if self.norm == "linf" else _unit(gradient)

    def check(self, images: Tensor) -> None:
        """Raise AttackError for NaN or clean images outside [low, high], which clamping could move by more than eps."""
        lowest, highest = (images.min().item(), images.max().item()) if images.numel() else (self.low, self.low)
        if not (lowest >= self.low and highest <= self.high):
            raise AttackError(
                f"images are in [{lowest:.4g}, {highest:.4g}], outside [low, high] = [{self.low}, {self.high}]: give "
                "the range of your images as low and high (and eps in the same units)."
            )


def per_sample(values: Tensor, like: Tensor) -> Tensor:  # (K,), (K, *F) -> (K, 1, ...)
    """One number per sample, in a shape that broadcasts over a batch."""
    return values.view(-1, *[1] * (like.dim() - 1))


def _length(x: Tensor) -> Tensor:  # (K, *F) -> (K, 1, ...)
    return per_sample(torch.linalg.vector_norm(x.flatten(1), dim=1), x)


def _unit(x: Tensor) -> Tensor:
    """x / |x|_2 per sample. Scaled by its largest entry first: squares of a confident network's gradients underflow."""
    tiny = torch.finfo(x.dtype).tiny
    largest = per_sample(x.flatten(1).abs().amax(1), x)
    scaled = x / largest.clamp_min(tiny)
    return scaled / _length(scaled).clamp_min(tiny)
