"""Operations that can be differentiated to any order: each derivative is again such an operation.

What an operation saves, torch's own saves too. So whatever may be overwritten in place after torch's operation may be
overwritten after this one.
"""

# ruff: noqa: D102 (forward and backward are autograd.Function's own)

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

aten = torch.ops.aten
BY_X, BY_WEIGHT = 0, 1  # positions among the results of aten::convolution_backward


# Private API. Where it is missing, a backward with is_grads_batched raises torch's own error.
_batched = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda _: False)


def transformed(*args: Any) -> bool:
    """Whether vmap, torch.func or forward-mode differentiation is active, which these Functions have no rules for."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or any(isinstance(x, Tensor) and _batched(x) for x in args)
    )


class DifferentiableOp(Function):
    """An operation that can be differentiated to any order. :meth:`value` computes its values."""

    @staticmethod
    def value(*args: Any) -> Tensor:
        """The values, by torch's own operation."""
        raise NotImplementedError

    @classmethod
    def of(cls, *args: Any) -> Tensor:
        """The operation, differentiable to any order. Inside a backward with ``is_grads_batched`` it is torch's own."""
        result: Tensor = cls.value(*args) if transformed(*args) else cls.apply(*args)
        return result


# -- convolution -----------------------------------------------------------------------------------


class Geometry(NamedTuple):
    """The arguments of ``aten::convolution`` after its tensors."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]
    groups: int


class Convolution(DifferentiableOp):
    """y = w * x + b, transposed or not."""

    @staticmethod
    def value(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = aten.convolution(x, weight, bias, *geometry)
        return y

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return Convolution.value(x, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias, _ = ctx.needs_input_grad
        (grad,) = grads
        return (
            ConvolutionGradient.of(BY_X, grad, weight, x.detach(), ctx.geometry) if by_x else None,
            ConvolutionGradient.of(BY_WEIGHT, grad, x, weight.detach(), ctx.geometry) if by_weight else None,
            grad.sum([0, *range(2, grad.dim())]) if by_bias else None,
            None,
        )


class ConvolutionGradient(DifferentiableOp):
    """The gradient by x or by w, bilinear in dy and the other of the two. ``like`` gives the shape of the result."""

    @staticmethod
    def value(by: int, grad: Tensor, other: Tensor, like: Tensor, geometry: Geometry) -> Tensor:
        x, weight = (like, other) if by == BY_X else (other, like)
        output_mask = [by == BY_X, by == BY_WEIGHT, False]
        with torch.autocast(grad.device.type, enabled=False):
            gradient: Tensor = aten.convolution_backward(grad, x, weight, None, *geometry, output_mask)[by]
        return gradient

    @staticmethod
    def forward(ctx: Any, by: int, grad: Tensor, other: Tensor, like: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(grad, other)
        ctx.by, ctx.geometry = by, geometry
        return ConvolutionGradient.value(by, grad, other, like, geometry)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, other = ctx.saved_tensors
        _, by_grad, by_other, *_ = ctx.needs_input_grad
        (change,) = grads  # has the shape of x or w
        x, weight = (change, other) if ctx.by == BY_X else (other, change)
        return (
            None,
            Convolution.of(x, weight, None, ctx.geometry) if by_grad else None,
            ConvolutionGradient.of(1 - ctx.by, grad, change, other.detach(), ctx.geometry) if by_other else None,
            None,
            None,
        )


# -- activations and pooling: the second derivative is 0 -------------------------------------------


class ReLU(DifferentiableOp):
    """max(x, 0). As in torch, the backward needs the output, which the next layer usually saves too."""

    @staticmethod
    def value(x: Tensor) -> Tensor:
        y: Tensor = aten.relu(x)
        return y

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = ReLU.value(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return Slope.of(grads[0], ctx.saved_tensors[0].detach(), 0.0)


class LeakyReLU(DifferentiableOp):
    """max(x, slope x) for 0 <= slope <= 1. As in torch, the backward needs the input."""

    @staticmethod
    def value(x: Tensor, slope: float) -> Tensor:
        y: Tensor = aten.leaky_relu(x, slope)
        return y

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return LeakyReLU.value(x, slope)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return Slope.of(grads[0], ctx.saved_tensors[0].detach(), ctx.slope), None


class Slope(DifferentiableOp):
    """dy where x (or y, of the same sign) is positive, else slope dy. Linear in dy, constant in x but for the kink."""

    @staticmethod
    def value(grad: Tensor, x: Tensor, slope: float) -> Tensor:
        dx: Tensor = aten.leaky_relu_backward(grad, x, slope, False) if slope else aten.threshold_backward(grad, x, 0)
        return dx

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return Slope.value(grad, x, slope)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return Slope.of(grads[0], ctx.saved_tensors[0], ctx.slope), None, None


class AveragePool(DifferentiableOp):
    """Average pooling, linear in x."""

    @staticmethod
    def value(x: Tensor, options: tuple[Any, ...]) -> Tensor:
        y: Tensor = aten.avg_pool2d(x, *options)
        return y

    @staticmethod
    def forward(ctx: Any, x: Tensor, options: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.options = options
        return AveragePool.value(x, options)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return AveragePoolGradient.of(grads[0], ctx.saved_tensors[0].detach(), ctx.options), None


class AveragePoolGradient(DifferentiableOp):
    """The transpose of average pooling. ``like`` stands for x; only its shape matters."""

    @staticmethod
    def value(grad: Tensor, like: Tensor, options: tuple[Any, ...]) -> Tensor:
        dx: Tensor = aten.avg_pool2d_backward(grad, like, *options)
        return dx

    @staticmethod
    def forward(ctx: Any, grad: Tensor, like: Tensor, options: tuple[Any, ...]) -> Tensor:
        ctx.options = options
        return AveragePoolGradient.value(grad, like, options)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return AveragePool.of(grads[0], ctx.options), None, None
