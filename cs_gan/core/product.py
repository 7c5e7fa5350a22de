"""Constant matrices along the batch axis of tensors: dense, or block by block where they are narrow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cs_gan.core.bands import Bands, Block

# A block takes as many columns as its rows' own and some 30 more (float32), so that blocks spare half of a dense
# product at K = 128 and nearly all of it at 4096. `python benchmarks/coding.py` measures where they begin to win.
# That is one batch on a CPU, and another where each block is a kernel to launch.
# On an H100 dense was faster at 1,024 features up to K = 4,096, where it met the chip's peak; blocks wait for launches.
BLOCKED_FROM, BLOCKED_FROM_ON_GPU = 128, 4096
HEIGHT, HEIGHT_ON_GPU = 32, 128
# Private: a gradient of autograd.grad(..., is_grads_batched=True), to which no out= can be given.
_batched_gradient = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda _: False)


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix (rows, columns) in one dtype on one device, as the hot path multiplies by it.

    Attributes:
        rows: its number.
        weights: (rows, columns), or (m,) with the blocks' numbers one after another.
        blocks: windows (rows from, to, columns from, to) and views of ``weights``; none where it is dense.
    """

    rows: int
    weights: Tensor
    blocks: tuple[tuple[tuple[int, int, int, int], Tensor], ...] = ()

    def __matmul__(self, x: Tensor) -> Tensor:  # (columns, F) -> (rows, F)
        """In the dtype of both, whatever autocast is around it."""
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
    """The matrix and its transpose, by blocks or dense as is faster there, or as ``blocked`` says.

    By blocks, entries are left out that a rounding of the largest would swallow: 1/64 of the dtype's epsilon.
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
    """``matrix @ flat``: linear, so its derivative is itself with the transpose, to any order.

    A plain matmul would be cast to bfloat16 by an enclosing autocast, in its backward too when a
    gradient penalty differentiates inside the context; here both run in the dtype they are given.
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
        """The mapped axis is one more of features."""
        together = flat.movedim(in_dims[2], 2)
        product = multiply(matrix, transposed, together.flatten(1))
        return product.view(matrix.rows, *together.shape[1:]), 2


def multiply(matrix: Matrix, transposed: Matrix, flat: Tensor) -> Tensor:  # (columns, F) -> (rows, F)
    """``matrix @ flat``, differentiable in ``flat``."""
    if (
        not torch.is_grad_enabled() and not matrix.blocks
    ):  # as in most backwards; a node costs as much as a small product
        return matrix @ flat
    product: Tensor = _Product.apply(matrix, transposed, flat)
    return product


def multiply_batch(matrix: Matrix, transposed: Matrix, x: Tensor) -> Tensor:  # (columns, *F) -> (rows, *F)
    """Along the batch axis, keeping the memory layout of the rest (channels_last stays so)."""
    axes = sorted(range(1, x.dim()), key=lambda axis: x.stride(axis), reverse=True)
    flat = x.permute(0, *axes).reshape(x.shape[0], -1)  # a view whenever x is dense
    mixed = multiply(matrix, transposed, flat)
    shape = [x.shape[axis] for axis in axes]
    back = [1 + axes.index(axis) for axis in range(1, x.dim())]
    return mixed.view(matrix.rows, *shape).permute(0, *back)


def _blocked(blocks: list[Block], dtype: torch.dtype, device: torch.device) -> Matrix:
    # In one tensor they reach a device by one copy, and are held by one reference.
    weights = torch.from_numpy(np.concatenate([block.weights.ravel() for block in blocks])).to(device, dtype)
    parts = torch.split(weights, [block.weights.size for block in blocks])
    views = tuple((block.window, part.view(block.weights.shape)) for block, part in zip(blocks, parts, strict=True))
    return Matrix(blocks[-1].window[1], weights, views)
