"""What coded-smoothing does to a model on one batch: figures of each block, measured without touching the model.

The decoding error of a block f on a batch X, with outputs Y = f(X), splits exactly in two::

    D f(E X) - Y  =  (D E - I) Y  +  D (f(E X) - E Y)
                     affine part     curvature part

For an affine f the second part is 0, since rows of E sum to 1 and so f(E X) = E f(X). The first part is what the
code does to the outputs themselves, whatever f is; it needs no fit of an affine map, which a batch of fewer samples
than features would always pass through exactly. The two parts are not orthogonal: their mean squares and their
cross term add up to the mean squared error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.core.axes import Axes, batch_along
from cs_gan.core.batch import Discrepancy
from cs_gan.core.code import SplineCode
from cs_gan.core.hooks import Call, Coding, Observing
from cs_gan.core.tree import map_leaves


@dataclass(frozen=True)
class CodeCondition:
    """How a code of K samples and N coded samples is conditioned; it depends on nothing else of the batch.

    Attributes:
        K, N: samples and coded samples.
        encoder_norm: max_n sum_k abs(E_nk), the Lebesgue constant of encoding: a coded sample is at most so many
            times larger than the largest sample.
        decoder_norm: the same of D, for decoded outputs.
        condition: largest over smallest singular value of E.
        decoder_kind: of the code; with ``zero-forcing`` there is no bias by choice.
        bias: the squared Frobenius norm of D E - I over K: the affine part that independent samples of variance 1
            pay on average.
    """

    K: int
    N: int
    encoder_norm: float
    decoder_norm: float
    condition: float
    bias: float
    decoder_kind: str = "spline"


def code_condition(code: SplineCode) -> CodeCondition:
    """The figures of one code."""
    E, D = code.encoder, code.decoder
    return CodeCondition(
        code.K,
        code.N,
        lebesgue_constant(E),
        lebesgue_constant(D),
        condition_number(E),
        bias(E, D),
        code.decoder_kind,
    )


def lebesgue_constant(matrix: Tensor) -> float:  # (n, m)
    """The norm of an interpolation from the maximum norm to the maximum norm: its largest absolute row sum."""
    return float(matrix.abs().sum(dim=1).max())


def condition_number(matrix: Tensor) -> float:  # (n, m)
    """Largest over smallest singular value."""
    values = torch.linalg.svdvals(matrix)
    return float(values.max() / values.min())


def bias(E: Tensor, D: Tensor) -> float:  # (N, K), (K, N)
    """The squared Frobenius norm of D E - I over K."""
    return float((D @ E - torch.eye(len(D), dtype=D.dtype)).square().sum()) / len(D)


@dataclass(frozen=True)
class Parts:
    """Means over a block's output tensor, added over its output tensors and calls as the penalty is."""

    error: float = 0.0  # of (D f(E X) - Y)^2
    affine: float = 0.0  # of ((D E - I) Y)^2
    curvature: float = 0.0  # of (D (f(E X) - E Y))^2
    cross: float = 0.0  # twice of the product of the two: error = affine + curvature + cross
    variance: float = 0.0  # of Y over the batch
    power: float = 0.0  # of Y^2

    def __add__(self, other: Parts) -> Parts:
        return Parts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def split_error(decoded: Tensor, output: Tensor, code: SplineCode) -> Parts:  # (K, *F), (K, *F)
    """The mean squared decoding error, its affine and curvature parts and their cross term."""
    # Apple's GPUs have no float64; elsewhere it keeps the split as exact as the outputs are.
    dtype = torch.float32 if output.device.type == "mps" else torch.float64
    Y = output.to(dtype)
    affine = code.decode(code.encode(Y)) - Y
    curvature = decoded.to(dtype) - Y - affine
    return Parts(
        error=(decoded.to(dtype) - Y).square().mean().item(),
        affine=affine.square().mean().item(),
        curvature=curvature.square().mean().item(),
        cross=2 * (affine * curvature).mean().item(),
        variance=Y.var(dim=0, correction=0).mean().item(),
        power=Y.square().mean().item(),
    )


class Diagnosing(Observing):
    """Observes as training does, and splits each discrepancy's error on the way."""

    def __init__(self, coding: Coding, discrepancy: Discrepancy, share_dropout: bool) -> None:
        super().__init__(coding, self._split, share_dropout, {})
        self._of_training = discrepancy
        self._call: Call | None = None
        self.parts: dict[str, Parts] = {}
        self.codes: dict[str, list[SplineCode]] = {}

    def after(self, call: Call, output: Any) -> None:
        """As in training; blocks nested in this one run plainly meanwhile, so one call is kept, not a stack."""
        self._call = call
        self.codes.setdefault(call.name, []).append(call.code)
        super().after(call, output)

    def _split(self, decoded: Tensor, output: Tensor) -> Tensor:
        assert self._call is not None
        name = self._call.name
        self.parts[name] = self.parts.get(name, Parts()) + split_error(decoded, output, self._call.code)
        return self._of_training(decoded, output)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Inside, the model may run; after it, its buffers, attributes and torch's random state are as they were.

    Buffers are swapped for copies rather than written back: a graph that waits for its backward may have saved them.
    """
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    copies: dict[int, Tensor] = {}  # two modules may share a buffer, and then share its copy
    for module, own in buffers:
        for name, buffer in own.items():
            if buffer is not None:
                module._buffers[name] = copies.setdefault(id(buffer), buffer.clone())
    tensors = chain(model.parameters(), model.buffers())
    devices = {tensor.device for tensor in tensors if tensor.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
            yield
    finally:
        for module, own in attributes:
            vars(module).clear()
            vars(module).update(own)
        for module, own in buffers:
            module._buffers.clear()
            module._buffers.update(own)


@contextmanager
def stretched(block: nn.Module, axes: Axes, factor: float) -> Iterator[None]:
    """Inside, the block's outputs stand ``factor`` times as far from their mean over the batch; 0 gives the mean."""

    def stretch_all(_module: nn.Module, _args: Any, output: Any) -> Any:
        tensors = 0

        def stretch(leaf: Any) -> Any:
            nonlocal tensors
            if not isinstance(leaf, Tensor):
                return leaf
            axis = axes.gives[tensors > 0]
            tensors += 1
            if not leaf.is_floating_point() or batch_along(leaf, axis) is None:
                return leaf
            mean = leaf.mean(dim=axis, keepdim=True)
            return mean + factor * (leaf - mean)

        return map_leaves(stretch, output)

    hook = block.register_forward_hook(stretch_all)
    try:
        yield
    finally:
        hook.remove()


def ratio(part: float, whole: float) -> float:
    """A share, which is 0 of nothing."""
    return part / whole if whole != 0 else 0.0
