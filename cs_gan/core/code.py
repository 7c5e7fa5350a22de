"""SplineCode: two fixed matrices that turn a batch of K samples into N coded samples and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cs_gan.core.bands import Bands
from cs_gan.core.nodes import coded_nodes, data_nodes
from cs_gan.core.product import Matrix, multiply_batch, place
from cs_gan.core.splines import spline_matrix
from cs_gan.errors import BatchError, CodeError

DECODERS = ("spline", "zero-forcing")
# Number of codes in the cache. A growing N or random nodes use many codes only once.
KEPT = 32


@dataclass(frozen=True)
class SplineCode:
    """The code of one (K, N): encoding matrix E (N, K) and decoding matrix D (K, N).

    ::

        data x at alpha_1..alpha_K  --E-->  coded x~ at beta_1..beta_N  --block-->  y~  --D-->  decoded y^ at alpha

    Both matrices are built once per configuration in float64 and cached per dtype and device. Those of natural and
    linear splines are band matrices, which large batches multiply in blocks. Rows of E sum to 1, and so do those of D
    (for zero-forcing if N >= K). D E is the identity only if the decoder is zero-forcing. With other decoders the
    penalty therefore also acts on affine blocks.

    Args:
        K: samples in a batch, at least 2.
        N: coded samples, at least 2; may be less than K.
        nodes: ``chebyshev`` (first kind for data, second kind for coded samples), ``uniform`` or
            ``random`` (Chebyshev points jittered by ``seed``; a new seed is a new code).
        spline: ``natural`` (cubic), ``linear``, ``quintic``, ``not-a-knot`` (cubic), ``smoothing``
            (cubic, with weight ``smoothing``) or ``berrut`` (rational).
        decoder_kind: ``spline`` fits the same spline at the coded nodes; ``zero-forcing`` is pinv(E),
            for which D E = I if N >= K.
        smoothing: lambda of the smoothing spline, in encoder and decoder.
        seed: for the ``random`` nodes.

    Raises:
        CodeError: for K or N below 2, an unknown choice, or too few nodes for the spline.

    Source: arXiv 2510.00253, section 3 (encode, decode). The matrix form, the other splines and nodes, and the
    zero-forcing decoder are ours (docs/method.md).
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
        _matrices(self)  # an invalid choice fails here, not in the first step

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
        return torch.from_numpy(_matrices(self)[0].dense())

    @property
    def decoder(self) -> Tensor:
        """The decoding matrix D, (K, N) float64 on CPU."""
        return torch.from_numpy(_matrices(self)[1].dense())

    def encode(self, x: Tensor, permutation: Tensor | None = None) -> Tensor:  # (K, *F) -> (N, *F)
        """The coded samples E x, or E x[permutation] at the same cost.

        Args:
            x: (K, *F) floating point or complex. bfloat16 and float16 are multiplied in float32, also under autocast.
                The result has the dtype of x.
            permutation: (K,) int64 on CPU: node k gets sample permutation[k].

        Raises:
            BatchError: if x is not floating point or complex, or its first axis is not K.
        """
        return self._apply("encode", 0, x, permutation)

    def decode(self, y: Tensor, permutation: Tensor | None = None) -> Tensor:  # (N, *F) -> (K, *F)
        """The decoded outputs D y, in the order of the batch before ``encode(x, permutation)``.

        Raises:
            BatchError: if y is not floating point or complex, or its first axis is not N.
        """
        return self._apply("decode", 1, y, permutation)

    def nearest(self, device: torch.device | str = "cpu") -> Tensor:  # (N,) int64
        """For each coded sample, the index of the data sample with the nearest node."""
        alpha, beta = self.alpha, self.beta
        below = np.searchsorted(-alpha, -beta).clip(1, self.K - 1)  # beta is between alpha[below - 1] and alpha[below]
        further = np.abs(beta - alpha[below]) < np.abs(beta - alpha[below - 1])
        return torch.from_numpy(below - 1 + further).to(device)

    def placed(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """The matrices that encode and decode use on this device, for code that captures a CUDA graph.

        Call this before the capture, because tensors can't be moved to the device during one. Keep the result as long
        as the graph: the cache of this class drops old matrices.

        Args:
            dtype: float32 (for half precision too) or float64.
        """
        there = torch.empty(0, device=device).device  # "cuda" with its number
        return tuple(matrix.weights for direction in (0, 1) for matrix in _placed(self, direction, dtype, there))

    def _apply(self, call: str, direction: int, x: Tensor, permutation: Tensor | None) -> Tensor:
        rows, name = ((self.K, "K"), (self.N, "N"))[direction]
        if x.is_complex():
            return torch.view_as_complex(
                self._apply(call, direction, torch.view_as_real(x.resolve_conj()), permutation)
            )
        if not x.is_floating_point():
            raise BatchError(f"{call} got {x.dtype}: only floating-point and complex tensors can be coded.")
        if x.dim() == 0 or x.shape[0] != rows:
            raise BatchError(f"{call} got shape {tuple(x.shape)}: the first axis must be {name} = {rows}.")
        dtype = torch.promote_types(x.dtype, torch.float32)
        matrix, transposed = _placed(self, direction, dtype, x.device)
        if permutation is None:
            return multiply_batch(matrix, transposed, x.to(dtype)).to(x.dtype)
        inverse = permutation.argsort().to(x.device)
        if matrix.blocks:
            if direction == 1:
                return self._apply(call, direction, x, None).index_select(0, inverse)
            return self._apply(call, direction, x.index_select(0, permutation.to(x.device)), None)
        # Encoding x[permutation] permutes E's columns, and undoing that permutes D's rows. Both are much cheaper than
        # permuting the batch.
        moved = matrix.weights[:, inverse] if direction == 0 else matrix.weights[inverse]
        return multiply_batch(Matrix(matrix.rows, moved), Matrix(rows, moved.T), x.to(dtype)).to(x.dtype)


@lru_cache(maxsize=KEPT)
def _matrices(code: SplineCode) -> tuple[Bands, Bands]:
    """E (N, K) and D (K, N), float64."""
    fit = partial(spline_matrix, code.spline, smoothing=code.smoothing)
    encoder = fit(code.alpha, code.beta)
    if code.decoder_kind == "zero-forcing":
        return encoder, Bands.of(np.asarray(np.linalg.pinv(encoder.dense()), dtype=np.float64))
    return encoder, fit(code.beta, code.alpha)


@lru_cache(maxsize=2 * KEPT)
@torch.inference_mode(False)  # tensors cached during inference must also work in training
def _placed(code: SplineCode, direction: int, dtype: torch.dtype, device: torch.device) -> tuple[Matrix, Matrix]:
    """E or D, and its transpose, on a device in a dtype."""
    return place(_matrices(code)[direction], dtype, device)
