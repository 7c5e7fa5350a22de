"""How far decoded outputs are from a block's own: the discrepancies that ``CodedSmoothing`` knows by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cs_gan.errors import CodeError

Discrepancy = Callable[[Tensor, Tensor], Tensor]


def mean_squared_error(decoded: Tensor, output: Tensor) -> Tensor:  # (K, *F), (K, *F) -> ()
    """The default discrepancy. The gradient goes through both sides (docs/method.md says why)."""
    mean: Tensor = _MeanSquare.apply(decoded - output)
    return mean


def held_outputs(decoded: Tensor, output: Tensor) -> Tensor:  # (K, *F), (K, *F) -> ()
    """Experimental: no gradient through the outputs. They then chase their own decoded values and may grow forever."""
    return mean_squared_error(decoded, output.detach())


def held_decoded(decoded: Tensor, output: Tensor) -> Tensor:  # (K, *F), (K, *F) -> ()
    """Experimental: no gradient through the decoded outputs."""
    return mean_squared_error(decoded.detach(), output)


def scale_free_error(decoded: Tensor, output: Tensor) -> Tensor:  # (K, *F), (K, *F) -> ()
    """The mean squared error divided by the variance of the outputs over the batch. Ours.

    Multiplying the outputs by a number doesn't change it, so one weight suits blocks of any scale. The variance counts
    as a constant: the gradient is the one of the mean squared error, divided by the variance, and still shrinks
    outputs. Its pull grows as they shrink, so at a fixed weight they can become constant: hold its share. The variance
    is at least ``FLOOR`` times the mean square of the outputs, so constant outputs give 0 up to rounding.
    """
    return mean_squared_error(decoded, output) / _variance(output).detach()


def shrink_proof_error(decoded: Tensor, output: Tensor) -> Tensor:  # (K, *F), (K, *F) -> ()
    """:func:`scale_free_error` with the gradient of the variance, too. Ours.

    Shrinking the outputs doesn't lower it, so its gradient has no part along them: it only smooths.
    """
    return mean_squared_error(decoded, output) / _variance(output)


FLOOR = 2.0**-24
"""Outputs that vary by less than 2^-12 of their root mean square count as constant; float32 rounds at 2^-24."""


def _variance(output: Tensor) -> Tensor:  # (K, *F) -> ()
    """The variance over the batch, averaged over features, and not below the floor."""
    mean = output.mean(0, keepdim=True)
    variance: Tensor = _MeanSquare.apply(output - mean)
    floor = output.detach().square().mean() * FLOOR + torch.finfo(output.dtype).tiny
    return torch.maximum(variance, floor)


DISCREPANCIES = {"squared": mean_squared_error, "scale_free": scale_free_error, "shrink_proof": shrink_proof_error}
"""The discrepancies by name."""


def discrepancy_of(chosen: str | Discrepancy) -> Discrepancy:
    """A discrepancy by its name, or the given function.

    Raises:
        CodeError: for an unknown name.
    """
    if callable(chosen) and not isinstance(chosen, type):
        return chosen
    if not isinstance(chosen, str) or chosen not in DISCREPANCIES:
        names = ", ".join(DISCREPANCIES)
        raise CodeError(f"discrepancy={chosen!r} is unknown: choose one of {names}, or give a function.")
    return DISCREPANCIES[chosen]


STOP_GRADIENT = {"none": mean_squared_error, "outputs": held_outputs, "decoded": held_decoded}
"""The discrepancies by the side without gradient. All except ``none`` are experimental."""


class _MeanSquare(torch.autograd.Function):
    """``x.square().mean()`` with a backward of one product in the memory layout of x.

    torch's own backward makes three passes and uses another memory layout, which makes earlier operations copy.
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.square().mean()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope: Tensor = x * (grads[0] * (2 / x.numel()))
        return slope

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        change: Tensor = (x * tangents[0]).mean() * 2
        return change

    generate_vmap_rule = True
