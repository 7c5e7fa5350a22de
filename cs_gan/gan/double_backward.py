"""Fast second derivatives of a critic.

A gradient penalty differentiates a gradient. torch is slow here for two reasons. It computes the double backward of a
convolution as a convolution with a kernel as large as the image, which uses only a fraction of the hardware. And the
second derivative of ReLU, leaky ReLU and average pooling is 0, but torch sends it as a tensor of zeros through a whole
backward pass of the network.

Here the derivatives of each operation are again operations of this kind ("closed under differentiation"). So a
derivative of any order is an ordinary convolution, input gradient or weight gradient, and zeros are not computed. The
values equal torch's, up to rounding. The closed convolution is the idea of NVIDIA's ``conv2d_gradfix``; the code is
ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from cs_gan.core.recompute import checkpointed
from cs_gan.gan.closed import AveragePool, Convolution, Geometry, LeakyReLU, ReLU, transformed
from cs_gan.second_derivative import twice_differentiable

CPU_CROSSOVER = 2**24
"""On a CPU, convolutions with fewer multiply-adds use torch's own: Python's overhead would be larger than the gain."""


@contextmanager
def fast_double_backward() -> Iterator[None]:
    """A context for the forward pass of a network that will be differentiated twice.

    Convolutions, ReLU, leaky ReLU and average pooling are closed under differentiation in it. Attention uses the kernel
    that has a second derivative.

    ::

        with fast_double_backward():
            scores = critic(images.requires_grad_())
        (slope,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
        slope.square().sum().backward()

    Put only the forward pass inside. :func:`gradient_penalty` does this itself. The model is not changed: all calls
    are intercepted, inside or outside of modules. Calls without a case here run as usual in torch: inputs that need
    no gradient, subclasses of Tensor, in-place activations, asymmetric padding, ``torch.func``, forward-mode
    differentiation, non-reentrant checkpoints, and on a CPU convolutions too small to gain (:data:`CPU_CROSSOVER`).
    Parameters that the slope does not depend on, such as the biases of a piecewise linear critic, get no gradient from
    it, where torch's own gives zeros.
    """
    with twice_differentiable(), _Closing():
        yield


_PLAIN = (Tensor, nn.Parameter)


class _Closing(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        closed = _CLOSED.get(function)
        if closed is not None:
            result = closed(*args, **(kwargs or {}))
            if result is not None:
                return result
        return function(*args, **(kwargs or {}))


def _applies(x: Any) -> bool:
    """Whether second derivatives by x may follow, of a kind that the Functions here support."""
    return (
        type(x) in _PLAIN  # a subclass may give operations another meaning
        and x.requires_grad
        and torch.is_grad_enabled()
        and x.is_floating_point()
        and x.layout is torch.strided
        and x.device.type in ("cpu", "cuda")
        and not transformed(x)
        and not checkpointed()  # its recomputation, outside our context, would save other tensors
    )


# -- cases -----------------------------------------------------------------------------------------


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor | None:
    if not _applies(x) or type(weight) not in _PLAIN or not (bias is None or type(bias) in _PLAIN):
        return None
    if x.dim() != weight.dim() or x.dim() != 2 + len(geometry.stride) or not weight.numel() or geometry.groups < 1:
        return None  # among them a single image without a batch axis
    kernel = weight.numel() // weight.shape[1]  # multiply-adds for each input pixel of a stride-1 convolution
    if x.device.type == "cpu" and x.numel() * kernel // geometry.groups < CPU_CROSSOVER:
        return None
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = _cast(x, dtype), _cast(weight, dtype)
        bias = None if bias is None else _cast(bias, dtype)
    y: Tensor = Convolution.apply(x, weight, bias, geometry)
    return y


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """As autocast does, which leaves float64."""
    return x if x.dtype == torch.float64 else x.to(dtype)


def _convolution(dims: int) -> Callable[..., Tensor | None]:
    """The counterpart of ``torch.conv<dims>d``."""

    def convolution(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Tensor | None:
        spread = _each(dilation, dims)
        if padding == "same":
            around = [d * (size - 1) for d, size in zip(spread, weight.shape[2:], strict=False)]
            if any(total % 2 for total in around) or any(step != 1 for step in _each(stride, dims)):
                return None  # asymmetric, or refused by torch
            padding = [total // 2 for total in around]
        elif isinstance(padding, str):
            if padding != "valid":
                return None
            padding = 0
        geometry = Geometry(_each(stride, dims), _each(padding, dims), spread, False, [0] * dims, groups)
        return _convolved(input, weight, bias, geometry)

    return convolution


def _transposed(dims: int) -> Callable[..., Tensor | None]:
    """The counterpart of ``torch.conv_transpose<dims>d``."""

    def transposed(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        dilation: int | Sequence[int] = 1,
    ) -> Tensor | None:
        given = (_each(stride, dims), _each(padding, dims), _each(dilation, dims))
        return _convolved(input, weight, bias, Geometry(*given, True, _each(output_padding, dims), groups))

    return transposed


def _each(value: int | Sequence[int], dims: int) -> list[int]:
    values = [int(size) for size in value] if isinstance(value, Sequence) else [int(value)]  # numpy's integers too
    return values * dims if len(values) == 1 else values


def _relu(input: Tensor, inplace: bool = False) -> Tensor | None:
    return None if inplace or not _applies(input) else ReLU.apply(input)


def _leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor | None:
    if inplace or not isinstance(negative_slope, int | float) or not 0 <= negative_slope <= 1 or not _applies(input):
        return None
    y: Tensor = LeakyReLU.apply(input, negative_slope)
    return y


def _average_pool(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor | None:
    if not _applies(input):
        return None
    size = _each(kernel_size, 2)
    step = size if stride is None else _each(stride, 2)
    options = (size, step, _each(padding, 2), ceil_mode, count_include_pad, divisor_override)
    y: Tensor = AveragePool.apply(input, options)
    return y


_CLOSED: dict[Any, Callable[..., Tensor | None]] = {
    torch.conv1d: _convolution(1),
    torch.conv2d: _convolution(2),
    torch.conv3d: _convolution(3),
    torch.conv_transpose1d: _transposed(1),
    torch.conv_transpose2d: _transposed(2),
    torch.conv_transpose3d: _transposed(3),
    torch.relu: _relu,
    Tensor.relu: _relu,
    F.relu: _relu,
    F.leaky_relu: _leaky_relu,
    F.avg_pool2d: _average_pool,
}
