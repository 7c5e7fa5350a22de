"""SplineCode: a batch of K samples to N coded samples and back, as two fixed matrices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cs_gan.core.nodes import coded_nodes, data_nodes
from cs_gan.core.splines import spline_matrix
from cs_gan.errors import BatchError, CodeError

DECODERS = ("spline", "zero-forcing")
# Codes kept at a time. A growing N or random nodes pass through many that never come back, and at
# K = 1024 one of them holds 25 MB.
KEPT = 32


@dataclass(frozen=True)
class SplineCode:
    """The code of one (K, N): encoding matrix E (N, K) and decoding matrix D (K, N).

    ::

        data x at alpha_1..alpha_K  --E-->  coded x~ at beta_1..beta_N  --block-->  y~  --D-->  decoded y^ at alpha

    Both matrices are built once per configuration in float64 and kept per dtype and device. Rows of E
    sum to 1, and so do those of D (for zero-forcing, from N = K on). D E is not the identity unless the
    decoder is zero-forcing: that is what makes the penalty act on affine blocks too.

    Args:
        K: samples in a batch, at least 2.
        N: coded samples, at least 2; below K is allowed.
        nodes: ``chebyshev`` (first kind for data, second kind for coded samples), ``uniform`` or
            ``random`` (Chebyshev points jittered by ``seed``; a new seed is a new code).
        spline: ``natural`` (cubic), ``linear``, ``quintic``, ``not-a-knot`` (cubic), ``smoothing``
            (cubic, with weight ``smoothing``) or ``berrut`` (rational).
        decoder_kind: ``spline`` fits the same spline at the coded nodes; ``zero-forcing`` is pinv(E),
            for which D E = I from N = K on.
        smoothing: lambda of the smoothing spline, in encoder and decoder.
        seed: of the ``random`` nodes.

    Raises:
        CodeError: for K or N below 2, an unknown choice, or too few nodes for the spline.

    Source: arXiv 2510.00253, section 3 (encode, decode); the matrix form, the other splines, nodes and
    the zero-forcing decoder are ours (docs/method.md).
    """

    K: int
    N: int
    nodes: str = "chebyshev"
    spline: str = "natural"
    decoder_kind: str = "spline"
    smoothing: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.K, Integral) and isinstance(self.N, Integral)):
            raise CodeError(f"SplineCode(K={self.K!r}, N={self.N!r}): K and N count samples; round them to integers.")
        if self.K < 2:
            raise CodeError(f"SplineCode(K={self.K}, N={self.N}): a spline needs a batch of at least K = 2 samples.")
        if self.N < 2:
            raise CodeError(f"SplineCode(K={self.K}, N={self.N}): N must be at least 2 coded samples; raise the ratio.")
        if self.decoder_kind not in DECODERS:
            raise CodeError(f"decoder_kind={self.decoder_kind!r} is unknown: choose one of {', '.join(DECODERS)}.")
        if not self.smoothing >= 0:
            raise CodeError(f"smoothing={self.smoothing} must be 0 or more.")
        _matrices(self)  # an unusable choice fails here, not in the first step

    @property
    def alpha(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Data nodes, (K,) float64, decreasing."""
        return data_nodes(self.nodes, self.K, self.seed)

    @property
    def beta(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Coded nodes, (N,) float64, decreasing."""
        return coded_nodes(self.nodes, self.N, self.seed)

    @property
    def encoder(self) -> Tensor:
        """The encoding matrix E, (N, K) float64 on CPU."""
        return _matrices(self)[0].clone()

    @property
    def decoder(self) -> Tensor:
        """The decoding matrix D, (K, N) float64 on CPU."""
        return _matrices(self)[1].clone()

    def encode(self, x: Tensor, permutation: Tensor | None = None) -> Tensor:  # (K, *F) -> (N, *F)
        """The coded samples E x, or E x[permutation] at the same cost.

        Args:
            x: (K, *F) floating point. bfloat16 and float16 are multiplied in float32, in and out of
                autocast, and come back in their own dtype.
            permutation: (K,) int64 on CPU, the order in which samples are laid on the nodes.

        Raises:
            BatchError: if x is not floating point or its first axis is not K.
        """
        return self._apply("encode", 0, x, permutation)

    def decode(self, y: Tensor, permutation: Tensor | None = None) -> Tensor:  # (N, *F) -> (K, *F)
        """The decoded outputs D y, in the order of the batch before ``encode(x, permutation)``.

        Raises:
            BatchError: if y is not floating point or its first axis is not N.
        """
        return self._apply("decode", 1, y, permutation)

    def placed(self, device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """The tensors that encode and decode multiply by there: who captures a CUDA graph holds them as long as it."""
        return *_placed(self, 0, dtype, device), *_placed(self, 1, dtype, device)

    def nearest(self, device: torch.device | str = "cpu") -> Tensor:  # (N,) int64
        """For each coded sample the index of the data sample whose node is closest to its own."""
        index = np.abs(self.beta[:, None] - self.alpha[None, :]).argmin(axis=1)
        return torch.from_numpy(index).to(device)

    def _apply(self, call: str, which: int, x: Tensor, permutation: Tensor | None) -> Tensor:
        rows, name = ((self.K, "K"), (self.N, "N"))[which]
        if not x.is_floating_point():
            raise BatchError(f"{call} got {x.dtype}: only floating-point tensors can be coded.")
        if x.dim() == 0 or x.shape[0] != rows:
            raise BatchError(f"{call} got shape {tuple(x.shape)}: the first axis must be {name} = {rows}.")
        dtype = torch.promote_types(x.dtype, torch.float32)
        matrix, transposed = _placed(self, which, dtype, x.device)
        if permutation is not None:
            # Laying x[permutation] on the nodes moves E's columns; undoing it moves D's rows. Either is
            # far cheaper than moving the batch itself.
            inverse = permutation.argsort().to(x.device)
            matrix = matrix[:, inverse] if which == 0 else matrix[inverse]
            transposed = matrix.T
        return _mix(matrix, transposed, x.to(dtype)).to(x.dtype)


@lru_cache(maxsize=KEPT)
@torch.inference_mode(False)  # what is cached there must still serve training
def _matrices(code: SplineCode) -> tuple[Tensor, Tensor]:
    """E (N, K) and D (K, N), float64."""
    fit = partial(spline_matrix, code.spline, smoothing=code.smoothing)
    encoder = fit(code.alpha, code.beta)
    decoder = np.linalg.pinv(encoder) if code.decoder_kind == "zero-forcing" else fit(code.beta, code.alpha)
    return torch.from_numpy(encoder), torch.from_numpy(decoder)


@lru_cache(maxsize=2 * KEPT)
@torch.inference_mode(False)
def _placed(code: SplineCode, which: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """E or D with its transpose, where and as the hot path needs it."""
    matrix = _matrices(code)[which].to(device, dtype)
    return matrix, matrix.T.contiguous()


class _BatchMatmul(torch.autograd.Function):
    """``matrix @ flat`` for a constant matrix: linear, so its derivative is itself with the transpose.

    A plain matmul would be cast to bfloat16 by an enclosing autocast, in its backward too when a
    gradient penalty differentiates inside the context; here both run in the dtype they are given.
    """

    @staticmethod
    def forward(matrix: Tensor, transposed: Tensor, flat: Tensor) -> Tensor:
        with torch.autocast(flat.device.type, enabled=False):
            return matrix @ flat

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        matrix, transposed, _ = inputs
        ctx.save_for_backward(matrix, transposed)
        ctx.save_for_forward(matrix, transposed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        matrix, transposed = ctx.saved_tensors
        return None, None, _multiply(transposed, matrix, grads[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        matrix, transposed = ctx.saved_tensors
        return _multiply(matrix, transposed, tangents[2])

    generate_vmap_rule = True


def _multiply(matrix: Tensor, transposed: Tensor, flat: Tensor) -> Tensor:
    product: Tensor = _BatchMatmul.apply(matrix, transposed, flat)
    return product


def _mix(matrix: Tensor, transposed: Tensor, x: Tensor) -> Tensor:  # (K, *F) -> (N, *F)
    """Multiply along the batch axis, keeping the memory layout of the rest (channels_last stays so)."""
    axes = sorted(range(1, x.dim()), key=lambda axis: x.stride(axis), reverse=True)
    flat = x.permute(0, *axes).reshape(x.shape[0], -1)  # a view whenever x is dense
    mixed = _multiply(matrix, transposed, flat)
    shape = [x.shape[axis] for axis in axes]
    back = [1 + axes.index(axis) for axis in range(1, x.dim())]
    return mixed.view(matrix.shape[0], *shape).permute(0, *back)
