"""Multiply constant matrices along the batch axis of tensors: dense, or for narrow bands block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cs_gan.core.bands import Bands, Block

# A block has about 30 columns more than rows (float32). So blocks save half of a dense product at K = 128 and nearly
# all of it at 4096. `python benchmarks/coding.py` measures the batch size from which blocks are faster. On a GPU it is
# larger, because each block is a kernel launch: on an H100 with 1,024 features, dense was faster up to K = 4,096.
BLOCKED_FROM, BLOCKED_FROM_ON_GPU = 128, 4096
HEIGHT, HEIGHT_ON_GPU = 32, 128
# Private API: whether x is a gradient of autograd.grad(..., is_grads_batched=True), which doesn't support out=.
_batched_gradient = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda _: False)


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix (rows, columns) in one dtype on one device, dense or in blocks.

    Attributes:
        rows: number of rows.
        weights: (rows, columns), or (m,) with the entries of all blocks.
        blocks: for each block its window (first row, end row, first column, end column) and a view of ``weights``;
            empty if the matrix is dense.
    """

    rows: int
    weights: Tensor
    blocks: tuple[tuple[tuple[int, int, int, int], Tensor], ...] = ()

    def __matmul__(self, x: Tensor) -> Tensor:  # (columns, F) -> (rows, F)
        """The product in the operands' dtype, also under autocast."""
        with torch.autocast(x.device.type, enabled=False):
            if not self.blocks:
                return self.weights @ x
            if _batched_gradient(x):
                return torch.cat([weights @ x[low:high] for (_, _, low, high), weights in self.blocks])
            product = x.new_empty(self.rows, x.shape[1])
            for (top, bottom, low, high), weights in self.blocks:
                torch.mm(weights, x[low:high], out=product[top:bottom])
            return product


def place(bands: Bands, dtype: torch.dtype, device: torch.device, blocked: bool | None = None) -> tuple[Matrix, Matrix]:
    """The matrix and its transpose, in blocks if that is faster on the device. ``blocked`` overrides this choice.

    Blocks leave out entries below 1/64 of the dtype's epsilon, which is less than the rounding error of the largest.
    """
    on_cpu, rows, columns = device.type == "cpu", len(bands.start), bands.columns
    if blocked is None:
        blocked = min(rows, columns) >= (BLOCKED_FROM if on_cpu else BLOCKED_FROM_ON_GPU) and bands.narrow
    if not blocked:
        matrix = torch.from_numpy(bands.dense()).to(device, dtype)
        return Matrix(rows, matrix), Matrix(columns, matrix.T.contiguous())
    height, tolerance = HEIGHT if on_cpu else HEIGHT_ON_GPU, torch.finfo(dtype).eps / 64
    plain, transposed = (list(bands.blocks(height, tolerance, way)) for way in (False, True))
    return _blocked(plain, dtype, device), _blocked(transposed, dtype, device)


class _Product(torch.autograd.Function):
    """``matrix @ flat``. It is linear, so derivatives of any order are products with the matrix or its transpose.

    Autocast would run a plain matmul in bfloat16, and also its backward if a gradient penalty differentiates inside
    the context. Here both run in the dtype of the operands.
    """

    @staticmethod
    def forward(matrix: Matrix, transposed: Matrix, flat: Tensor) -> Tensor:
        return matrix @ flat

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Matrix, Matrix, Tensor], output: Tensor) -> None:
        ctx.matrix, ctx.transposed, _ = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        return None, None, multiply(ctx.transposed, ctx.matrix, grads[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return multiply(ctx.matrix, ctx.transposed, tangents[2])

    @staticmethod
    def vmap(info: Any, in_dims: Any, matrix: Matrix, transposed: Matrix, flat: Tensor) -> tuple[Tensor, int]:
        """Treat the mapped axis as one more axis of features."""
        together = flat.movedim(in_dims[2], 2)
        product = multiply(matrix, transposed, together.flatten(1))
        return product.view(matrix.rows, *together.shape[1:]), 2


def multiply(matrix: Matrix, transposed: Matrix, flat: Tensor) -> Tensor:  # (columns, F) -> (rows, F)
    """``matrix @ flat``, differentiable in ``flat``."""
    # In most backwards no graph is needed. A node of the graph costs as much as a small product.
    if not torch.is_grad_enabled() and not matrix.blocks:
        return matrix @ flat
    product: Tensor = _Product.apply(matrix, transposed, flat)
    return product


def multiply_batch(matrix: Matrix, transposed: Matrix, x: Tensor) -> Tensor:  # (columns, *F) -> (rows, *F)
    """Multiply along the batch axis. The memory layout of the other axes (channels_last) is kept."""
    axes = sorted(range(1, x.dim()), key=lambda axis: x.stride(axis), reverse=True)
    flat = x.permute(0, *axes).reshape(x.shape[0], -1)  # a view whenever x is dense
    mixed = multiply(matrix, transposed, flat)
    shape = [x.shape[axis] for axis in axes]
    back = [1 + axes.index(axis) for axis in range(1, x.dim())]
    return mixed.view(matrix.rows, *shape).permute(0, *back)


def _blocked(blocks: list[Block], dtype: torch.dtype, device: torch.device) -> Matrix:
    # One tensor for all blocks needs only one copy to the device and one reference.
    weights = torch.from_numpy(np.concatenate([block.weights.ravel() for block in blocks])).to(device, dtype)
    parts = torch.split(weights, [block.weights.size for block in blocks])
    views = tuple((block.window, part.view(block.weights.shape)) for block, part in zip(blocks, parts, strict=True))
    return Matrix(blocks[-1].window[1], weights, views)
