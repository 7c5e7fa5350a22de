"""Operations whose derivatives are again operations of this kind, to any order. double_backward.py uses them."""

# ruff: noqa: D102 (forward and backward are autograd.Function's own)

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

aten = torch.ops.aten


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
            InputGradient.apply(grad, weight, x.detach(), ctx.geometry) if by_x else None,
            WeightGradient.apply(grad, x, weight.detach(), ctx.geometry) if by_weight else None,
            grad.sum([0, *range(2, grad.dim())]) if by_bias else None,
            None,
        )


class InputGradient(Function):
    """The gradient by x, bilinear in dy and w. ``like`` stands for x; only its shape matters."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Tensor, like: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(grad, weight)
        ctx.geometry = geometry
        return _gradient(0, grad, like, weight, geometry)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, weight = ctx.saved_tensors
        by_grad, by_weight, *_ = ctx.needs_input_grad
        (dx,) = grads
        return (
            Convolution.apply(dx, weight, None, ctx.geometry) if by_grad else None,
            WeightGradient.apply(grad, dx, weight.detach(), ctx.geometry) if by_weight else None,
            None,
            None,
        )


class WeightGradient(Function):
    """The gradient by w, bilinear in dy and x. ``like`` stands for w; only its shape matters."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, like: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(grad, x)
        ctx.geometry = geometry
        return _gradient(1, grad, x, like, geometry)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, x = ctx.saved_tensors
        by_grad, by_x, *_ = ctx.needs_input_grad
        (dw,) = grads
        return (
            Convolution.apply(x, dw, None, ctx.geometry) if by_grad else None,
            InputGradient.apply(grad, dw, x.detach(), ctx.geometry) if by_x else None,
            None,
            None,
        )


def _gradient(which: int, grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The gradient of a convolution by its input (0) or by its weight (1)."""
    wanted = [which == 0, which == 1, False]
    with torch.autocast(grad.device.type, enabled=False):
        found: Tensor = aten.convolution_backward(grad, x, weight, None, *geometry, wanted)[which]
    return found


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
