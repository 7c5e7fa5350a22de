"""Operations whose derivatives are again operations of this kind, to any order. double_backward.py uses them."""

# ruff: noqa: D102 (forward and backward are autograd.Function's own)

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

aten = torch.ops.aten
BY_X, BY_WEIGHT = 0, 1  # positions among the results of aten::convolution_backward


# -- convolution -----------------------------------------------------------------------------------


class Geometry(NamedTuple):
    """The arguments of ``aten::convolution`` after its tensors."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]
    groups: int


class Convolution(Function):
    """y = w * x + b, transposed or not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = aten.convolution(x, weight, bias, *geometry)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias, _ = ctx.needs_input_grad
        (grad,) = grads
        return (
            ConvolutionGradient.apply(BY_X, grad, weight, x.detach(), ctx.geometry) if by_x else None,
            ConvolutionGradient.apply(BY_WEIGHT, grad, x, weight.detach(), ctx.geometry) if by_weight else None,
            grad.sum([0, *range(2, grad.dim())]) if by_bias else None,
            None,
        )


class ConvolutionGradient(Function):
    """The gradient by x or by w, bilinear in dy and the other of the two. ``like`` gives the shape of the result."""

    @staticmethod
    def forward(ctx: Any, by: int, grad: Tensor, other: Tensor, like: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(grad, other)
        ctx.by, ctx.geometry = by, geometry
        x, weight = (like, other) if by == BY_X else (other, like)
        wanted = [by == BY_X, by == BY_WEIGHT, False]
        with torch.autocast(grad.device.type, enabled=False):
            found: Tensor = aten.convolution_backward(grad, x, weight, None, *geometry, wanted)[by]
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, other = ctx.saved_tensors
        _, by_grad, by_other, *_ = ctx.needs_input_grad
        (change,) = grads  # has the shape of x or w
        x, weight = (change, other) if ctx.by == BY_X else (other, change)
        return (
            None,
            Convolution.apply(x, weight, None, ctx.geometry) if by_grad else None,
            ConvolutionGradient.apply(1 - ctx.by, grad, change, other.detach(), ctx.geometry) if by_other else None,
            None,
            None,
        )


# -- activations and pooling: the second derivative is 0 -------------------------------------------


class LeakyReLU(Function):
    """max(x, slope x) for 0 <= slope <= 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        y: Tensor = aten.leaky_relu(x, slope) if slope else aten.relu(x)
        ctx.save_for_backward(y)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return Slope.apply(grads[0], ctx.saved_tensors[0].detach(), ctx.slope), None


class Slope(Function):
    """dy where y is positive, else slope dy: linear in dy, and constant in y except at the kink."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, y: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.slope = slope
        dx: Tensor = aten.leaky_relu_backward(grad, y, slope, True) if slope else aten.threshold_backward(grad, y, 0)
        return dx

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return Slope.apply(grads[0], ctx.saved_tensors[0], ctx.slope), None, None


class AveragePool(Function):
    """Average pooling, linear in x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, options: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.options = options
        y: Tensor = aten.avg_pool2d(x, *options)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return AveragePoolGradient.apply(grads[0], ctx.saved_tensors[0].detach(), ctx.options), None


class AveragePoolGradient(Function):
    """The transpose of average pooling. ``like`` stands for x; only its shape matters."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, like: Tensor, options: tuple[Any, ...]) -> Tensor:
        ctx.options = options
        dx: Tensor = aten.avg_pool2d_backward(grad, like, *options)
        return dx

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return AveragePool.apply(grads[0], ctx.options), None, None
