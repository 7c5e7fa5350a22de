"""Coding what a block takes and gives: any nesting of tuples, lists and dicts of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from cs_gan.core.code import SplineCode
from cs_gan.errors import BatchError

Discrepancy = Callable[[Tensor, Tensor], Tensor]


def mean_squared_error(decoded: Tensor, output: Tensor) -> Tensor:  # (K, *F), (K, *F) -> ()
    """The default discrepancy. The gradient goes through both sides (docs/method.md says why)."""
    return (decoded - output).square().mean()


def batch_size(block: str, inputs: Any) -> int:
    """K: the length of the first axis of the block's first tensor.

    Raises:
        BatchError: if there is no tensor with a batch axis, or the batch has one sample.
    """
    leaves = tree_flatten(inputs)[0]
    sizes = [leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() > 0]
    if not sizes:
        raise BatchError(f"block {block!r} was called without a tensor that has a batch axis: nothing to code.")
    if sizes[0] < 2:
        raise BatchError(
            f"block {block!r} got a batch of {sizes[0]}: a spline needs at least 2 samples. Use a larger batch, "
            "drop the last short one, or give RandomizedCodedInference a bank of `reference` inputs."
        )
    return int(sizes[0])


def encode_inputs(block: str, inputs: Any, code: SplineCode, permutation: Tensor | None) -> Any:
    """Every tensor whose first axis is K, encoded; the rest (scales, positions, flags) as it is.

    Raises:
        BatchError: for an integer or boolean tensor with a batch axis, or no floating-point one.
    """
    coded = 0

    def encode(leaf: Any) -> Any:
        nonlocal coded
        if not isinstance(leaf, Tensor) or leaf.dim() == 0 or leaf.shape[0] != code.K:
            return leaf
        if not leaf.is_floating_point():
            raise BatchError(
                f"block {block!r} takes a {leaf.dtype} tensor of shape {tuple(leaf.shape)}: integers, labels and "
                "masks can't be mixed. Choose a block after the embedding."
            )
        coded += 1
        return code.encode(leaf, permutation)

    result = tree_map(encode, inputs)
    if not coded:
        raise BatchError(f"block {block!r} takes no floating-point tensor with a batch axis of {code.K}.")
    return result


def output_penalty(block: str, output: Any, coded: Any, code: SplineCode, discrepancy: Discrepancy) -> Tensor:
    """The sum over output tensors of the discrepancy between decoded and plain output, in float32 or better."""
    leaves, spec = tree_flatten(output)
    coded_leaves, coded_spec = tree_flatten(coded)
    if spec != coded_spec:
        raise BatchError(f"block {block!r} gave another structure for coded samples than for the batch.")
    terms = []
    for plain, other in zip(leaves, coded_leaves, strict=True):
        if isinstance(plain, Tensor) and plain.is_floating_point():
            _check_batch_axis(block, plain, code.K, "K")
            _check_batch_axis(block, other, code.N, "N")
            dtype = torch.promote_types(plain.dtype, torch.float32)
            terms.append(discrepancy(code.decode(other.to(dtype)), plain.to(dtype)))
    if not terms:
        raise BatchError(f"block {block!r} gives no floating-point tensor: there is nothing to decode.")
    return torch.stack(terms).sum() if len(terms) > 1 else terms[0]


def decode_output(block: str, coded: Any, code: SplineCode, permutation: Tensor | None) -> Any:
    """Every output tensor decoded, in the order the batch had."""

    def decode(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if not leaf.is_floating_point():
            raise BatchError(
                f"block {block!r} gives a {leaf.dtype} tensor, which can't be decoded: choose a block before it."
            )
        _check_batch_axis(block, leaf, code.N, "N")
        return code.decode(leaf, permutation)

    leaves, spec = tree_flatten(coded)
    if not any(isinstance(leaf, Tensor) for leaf in leaves):
        kinds = ", ".join(sorted({type(leaf).__name__ for leaf in leaves}))
        raise BatchError(
            f"block {block!r} gives no tensor that can be decoded but {kinds}: give tuples, lists or dicts of tensors, "
            "or register the class with torch.utils._pytree."
        )
    return tree_unflatten([decode(leaf) for leaf in leaves], spec)


def _check_batch_axis(block: str, leaf: Tensor, expected: int, name: str) -> None:
    if leaf.dim() == 0 or leaf.shape[0] != expected:
        raise BatchError(
            f"block {block!r} gives a tensor of shape {tuple(leaf.shape)}, whose first axis is not the batch "
            f"({name} = {expected}). Choose a block that keeps the batch axis first."
        )
