"""What coded-smoothing does to a model on one batch: figures for each block, measured without changing the model.

The decoding error of a block f on a batch X, with outputs Y = f(X), is exactly the sum of two parts::

    D f(E X) - Y  =  (D E - I) Y  +  D (f(E X) - E Y)
                     affine part     curvature part

For an affine f the second part is 0: rows of E sum to 1, so f(E X) = E f(X). The first part depends only on the code
and the outputs. (Fitting an affine map to f instead would not work: with fewer samples than features the fit is always
exact.) The parts are not orthogonal: their mean squares and their cross term add up to the mean squared error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.core.code import SplineCode
from cs_gan.core.discrepancy import Discrepancy
from cs_gan.core.hooks import Call, Coding, Observing
from cs_gan.core.known import Axes
from cs_gan.core.nestings import batch_along, map_tensors


@dataclass(frozen=True)
class CodeCondition:
    """The conditioning of a code for K samples and N coded samples. It doesn't depend on the samples.

    Attributes:
        K, N: number of samples and of coded samples.
        encoder_norm: max_n sum_k abs(E_nk), the Lebesgue constant of encoding. A coded sample is at most this many
            times larger than the largest sample.
        decoder_norm: the same for D and decoded outputs.
        condition: largest singular value of E divided by its smallest.
        decoder_kind: of the code; ``zero-forcing`` is meant to have no bias.
        bias: the squared Frobenius norm of D E - I divided by K: the mean affine part for independent samples of
            variance 1.
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
        encoder_norm=float(torch.linalg.matrix_norm(E, torch.inf)),
        decoder_norm=float(torch.linalg.matrix_norm(D, torch.inf)),
        condition=float(torch.linalg.cond(E)),
        bias=float((D @ E - torch.eye(code.K, dtype=D.dtype)).square().sum()) / code.K,
        decoder_kind=code.decoder_kind,
    )


@dataclass(frozen=True)
class Parts:
    """Means over an output tensor of a block, summed over its output tensors and calls, like the penalty."""

    error: float = 0.0  # mean of (D f(E X) - Y)^2
    affine: float = 0.0  # mean of ((D E - I) Y)^2
    curvature: float = 0.0  # mean of (D (f(E X) - E Y))^2
    cross: float = 0.0  # twice the mean product of these two parts: error = affine + curvature + cross
    variance: float = 0.0  # of Y over the batch
    power: float = 0.0  # mean of Y^2

    def __add__(self, other: Parts) -> Parts:
        return Parts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def split_error(decoded: Tensor, output: Tensor, code: SplineCode) -> Parts:  # (K, *F), (K, *F)
    """The mean squared decoding error, its affine and curvature parts and their cross term."""
    # float64, so that the parts are as exact as the outputs. Apple's GPUs don't have it.
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
    """Observe as in training, and also split each decoding error into its parts."""

    def __init__(self, coding: Coding, discrepancy: Discrepancy, share_dropout: bool) -> None:
        super().__init__(coding, self._split, share_dropout, {})
        self.of_training = discrepancy
        self._call: Call | None = None
        self.parts: dict[str, Parts] = {}
        self.codes: dict[str, list[SplineCode]] = {}

    def after(self, call: Call, output: Any) -> None:
        """As in training. Nested blocks aren't coded meanwhile, so one call is stored, not a stack."""
        self._call = call
        self.codes.setdefault(call.name, []).append(call.code)
        super().after(call, output)

    def _split(self, decoded: Tensor, output: Tensor) -> Tensor:
        assert self._call is not None
        name = self._call.name
        self.parts[name] = self.parts.get(name, Parts()) + split_error(decoded, output, self._call.code)
        return self.of_training(decoded, output)


@contextmanager
def untouched(model: nn.Module, grad: bool = False) -> Iterator[None]:
    """A context in which the model may run. On exit its buffers, attributes and torch's random state are as before.

    With ``grad``, gradients can be computed inside.

    Inside, copies replace the buffers. Writing old values back could break a pending backward that has saved them.
    """
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    copies: dict[int, Tensor] = {}  # by id, so modules that share a buffer also share its copy
    for module, own in buffers:
        for name, buffer in own.items():
            if buffer is not None:
                module._buffers[name] = copies.setdefault(id(buffer), buffer.clone())
    tensors = chain(model.parameters(), model.buffers())
    devices = {tensor.device for tensor in tensors if tensor.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=list(devices)), torch.set_grad_enabled(grad):
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
    """A context that scales the block's outputs around their mean over the batch by ``factor``; 0 gives the mean."""

    def stretch(tensor: Tensor, axis: int) -> Tensor:
        if not tensor.is_floating_point() or batch_along(tensor, axis) is None:
            return tensor
        mean = tensor.mean(dim=axis, keepdim=True)
        return mean + factor * (tensor - mean)

    with block.register_forward_hook(lambda _module, _args, output: map_tensors(stretch, output, axes.gives)):
        yield


def ratio(part: float, whole: float) -> float:
    """part / whole, or 0 if ``whole`` is 0."""
    return part / whole if whole != 0 else 0.0
