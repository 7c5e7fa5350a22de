"""Encode the inputs of a block and decode its outputs. Both are nestings of tensors (cs_gan/core/tree.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from cs_gan.core.axes import Axes, batch_along, map_tensors
from cs_gan.core.code import SplineCode
from cs_gan.core.tree import leaves_of
from cs_gan.errors import BatchError

Discrepancy = Callable[[Tensor, Tensor], Tensor]
INTEGERS = ("refuse", "nearest")


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


def batch_size(block: str, inputs: Any, axes: Axes) -> int:
    """The batch size K: the length of the batch axis of the block's first tensor.

    Raises:
        BatchError: if there is no tensor with a batch axis, or the batch has one sample.
    """
    args, kwargs = inputs
    if any(isinstance(value, PackedSequence) for value in (*args, *kwargs.values())):
        raise BatchError(
            f"block {block!r} got a PackedSequence, whose samples have different lengths and can't be mixed: give the "
            "padded batch, or choose a block after it."
        )
    axis = axes.takes[0]
    tensors = [leaf for leaf in leaves_of(inputs)[0] if isinstance(leaf, Tensor) and leaf.dim() > 0]
    sizes = [size for size in (batch_along(tensor, axis) for tensor in tensors) if size is not None]
    if not sizes:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        found = f"with an axis {axis} (batch_axis={axis}; shapes: {shapes})" if shapes else "that has a batch axis"
        raise BatchError(f"block {block!r} was called without a tensor {found}: nothing to code.")
    if axes.dims is not None and tensors[0].dim() != axes.dims:
        raise BatchError(
            f"block {block!r} got shape {tuple(tensors[0].shape)}, a single sequence: give it {axes.dims} axes, of "
            f"which axis {axis} is the batch."
        )
    if sizes[0] < 2:
        raise BatchError(
            f"block {block!r} got a batch of {sizes[0]}: a spline needs at least 2 samples. Use a larger batch, "
            "drop the last short one, give RandomizedCodedInference a bank of `reference` inputs, or name the axis "
            "of the batch with `batch_axis`."
        )
    return sizes[0]


def encode_inputs(
    block: str, inputs: Any, axes: Axes, code: SplineCode, permutation: Tensor | None, integers: str
) -> Any:
    """Encode every tensor whose batch axis has length K. The rest (scales, positions, flags) is unchanged.

    Raises:
        BatchError: for an integer or boolean tensor with a batch axis, unless ``integers`` is ``nearest``; or if no
            floating-point tensor has a batch axis.
    """
    coded = 0

    def encode(tensor: Tensor, axis: int) -> Tensor:
        nonlocal coded
        if not tensor.is_floating_point():
            found = next((each for each in axes.integers if batch_along(tensor, each) == code.K), None)
            return tensor if found is None else _nearest(block, tensor, found, code, permutation, integers)
        if batch_along(tensor, axis) != code.K:
            return tensor
        coded += 1
        return _along(axis, tensor, lambda x: code.encode(x, permutation))

    result = map_tensors(encode, inputs, axes.takes)
    if not coded:
        raise BatchError(
            f"block {block!r} takes no floating-point tensor with a batch axis of {code.K}: integers alone can't be "
            "coded. Choose the block after the embedding."
        )
    return result


def output_penalty(
    block: str, output: Any, coded: Any, axes: Axes, code: SplineCode, discrepancy: Discrepancy
) -> Tensor:
    """The discrepancy of decoded and plain output, summed over output tensors, in float32 or float64."""
    leaves, structure = leaves_of(output)
    coded_leaves, coded_structure = leaves_of(coded)
    if structure != coded_structure:
        raise BatchError(f"block {block!r} gave another structure for coded samples than for the batch.")
    pairs = [pair for pair in zip(leaves, coded_leaves, strict=True) if isinstance(pair[0], Tensor)]
    terms = []
    for index, (plain, other) in enumerate(pairs):
        if plain.is_floating_point():
            axis = axes.gives[index > 0]
            _check_batch_axis(block, plain, axis, code.K, "K")
            _check_batch_axis(block, other, axis, code.N, "N")
            dtype = torch.promote_types(plain.dtype, torch.float32)
            # For the discrepancy the batch is always the first axis.
            terms.append(discrepancy(code.decode(_front(axis, other.to(dtype))), _front(axis, plain.to(dtype))))
    if not terms:
        raise BatchError(
            f"block {block!r} gives no floating-point tensor but {_kinds(leaves)}: there is nothing to decode. "
            "Choose a block before it, or let it give tensors, dataclasses, tuples, lists or dicts."
        )
    return torch.stack(terms).sum() if len(terms) > 1 else terms[0]


def decode_output(block: str, coded: Any, axes: Axes, code: SplineCode, permutation: Tensor | None) -> Any:
    """Decode every output tensor and restore the original order of the batch."""
    leaves = leaves_of(coded)[0]
    if not any(isinstance(leaf, Tensor) for leaf in leaves):
        raise BatchError(
            f"block {block!r} gives no tensor that can be decoded but {_kinds(leaves)}: give dataclasses, "
            "tuples, lists or dicts of tensors, or register the class with torch.utils._pytree."
        )

    def decode(tensor: Tensor, axis: int) -> Tensor:
        if not tensor.is_floating_point():
            raise BatchError(
                f"block {block!r} gives a {tensor.dtype} tensor, which can't be decoded: choose a block before it."
            )
        _check_batch_axis(block, tensor, axis, code.N, "N")
        return _along(axis, tensor, lambda y: code.decode(y, permutation))

    return map_tensors(decode, coded, axes.gives)


def _nearest(
    block: str, leaf: Tensor, axis: int, code: SplineCode, permutation: Tensor | None, integers: str
) -> Tensor:
    """Labels or masks for the coded samples: each takes those of the data sample with the nearest node."""
    if integers != "nearest":
        raise BatchError(
            f"block {block!r} takes a {leaf.dtype} tensor of shape {tuple(leaf.shape)}: integers, labels and masks "
            'can\'t be mixed. Choose a block after the embedding, or integers="nearest", which gives each coded sample '
            "the label of the data sample nearest to it."
        )
    index = code.nearest()
    if permutation is not None:  # node k holds sample permutation[k]
        index = permutation[index]
    return leaf.index_select(axis, index.to(leaf.device))


def _front(axis: int, x: Tensor) -> Tensor:
    return x.movedim(axis, 0) if axis else x


def _along(axis: int, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(x.movedim(axis, 0)).movedim(0, axis) if axis else function(x)


def _kinds(leaves: list[Any]) -> str:
    return ", ".join(sorted({str(getattr(leaf, "dtype", type(leaf).__name__)) for leaf in leaves})) or "nothing"


def _check_batch_axis(block: str, leaf: Tensor, axis: int, expected: int, name: str) -> None:
    if batch_along(leaf, axis) != expected:
        where = "first axis" if axis == 0 else f"axis {axis}"
        raise BatchError(
            f"block {block!r} gives a tensor of shape {tuple(leaf.shape)}, whose {where} is not the batch "
            f"({name} = {expected}). Choose a block that keeps the batch axis, or name the axis with `batch_axis`."
        )
