"""Encode the inputs of a block and decode its outputs. Both are nestings of tensors (cs_gan/core/nestings.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cs_gan.core.code import SplineCode
from cs_gan.core.conventions import Axes, Role
from cs_gan.core.masks import readable
from cs_gan.core.nestings import batch_along, leaves_of, map_leaves, map_tensors
from cs_gan.core.roles import CallHistory, mixable, outputs_left_out
from cs_gan.errors import BatchError


def encode_inputs(
    block: str, inputs: Any, roles: Sequence[Role], code: SplineCode, permutation: Tensor | None, discrete: str
) -> Any:
    """Do with every tensor what its role says.

    Args:
        roles: of the tensors, in the order of ``leaves_of(inputs)`` (cs_gan/core/roles.py).
        permutation: (K,) int64 on CPU: node k gets sample permutation[k].
        discrete: ``refuse`` tensors that can't be mixed, or give coded samples those of the ``nearest`` data sample.

    Raises:
        BatchError: for a tensor that can't be mixed, unless ``discrete`` is ``nearest``; or if nothing is encoded.
    """
    remaining, coded = iter(roles), 0

    def code_one(leaf: Any) -> Any:
        nonlocal coded
        if not isinstance(leaf, Tensor):
            return leaf
        role = next(remaining)
        if role.kind == "plain":
            return leaf
        if role.kind == "nearest":
            return _nearest(block, leaf, role, code, permutation, discrete)
        coded += leaf.numel() > 0
        return _along(role.axis or 0, leaf, lambda x: code.encode(x, permutation))

    result = map_leaves(code_one, inputs)
    if not coded:
        if any(role.kind == "encode" for role in roles):
            raise BatchError(f"block {block!r} takes only tensors without features: there is nothing to code.")
        raise BatchError(
            f"block {block!r} takes no floating-point tensor with a batch axis of {code.K}: integers alone can't be "
            "coded. Choose the block after the embedding."
        )
    return result


def decode_output(
    block: str, coded: Any, axes: Axes, code: SplineCode, permutation: Tensor | None, history: CallHistory
) -> Any:
    """Decode every output tensor and restore the original order of the batch."""
    leaves = leaves_of(coded)[0]
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if not tensors:
        raise BatchError(
            f"block {block!r} gives no tensor that can be decoded but {kinds_of(leaves)}: give dataclasses, "
            "tuples, lists or dicts of tensors, or register the class with torch.utils._pytree."
        )
    for number in sorted(outputs_left_out(tensors, history)):
        kind = "tensor of masked scores" if mixable(tensors[number]) else f"{tensors[number].dtype} tensor"
        raise BatchError(f"block {block!r} gives a {kind}, which can't be decoded: choose a block before it.")

    def decode(tensor: Tensor, axis: int) -> Tensor:
        check_batch_axis(block, tensor, axis, code.N, "N")
        return _along(axis, tensor, lambda y: code.decode(y, permutation))

    return map_tensors(decode, coded, axes.gives)


def _nearest(
    block: str, leaf: Tensor, role: Role, code: SplineCode, permutation: Tensor | None, discrete: str
) -> Tensor:
    """Labels or masks for the coded samples: each takes those of the data sample with the nearest node."""
    axis = role.axis or 0
    several = (*leaf.shape[:axis], code.K, role.rows, *leaf.shape[axis + 1 :])
    entries = leaf.reshape(several) if role.rows > 1 else leaf
    if role.by_user or discrete == "nearest":
        index = code.nearest()
        if permutation is not None:  # node k holds sample permutation[k]
            index = permutation[index]
        coded_entries = entries.index_select(axis, index.to(leaf.device))
    elif _same_for_all(entries, axis):
        coded_entries = (
            entries.narrow(axis, 0, 1).movedim(axis, 0).expand(code.N, *(-1,) * (entries.dim() - 1)).movedim(0, axis)
        )
    else:
        problem = (
            f"block {block!r} takes a {leaf.dtype} tensor of shape {tuple(leaf.shape)} as argument {role.argument!r}: "
        )
        if leaf.dtype == torch.uint8 and leaf.dim() > 2:
            raise BatchError(f"{problem}images of integers can't be mixed. Give floats, such as x.float() / 127.5 - 1.")
        remedy = f'If it has no batch, say so: arguments={{{role.argument!r}: "plain"}}'
        if mixable(leaf):
            remedy += ', or "encode" if it is data'
        raise BatchError(
            f"{problem}integers, labels and masks can't be mixed. Choose a block after the embedding, or "
            'discrete="nearest", which gives each coded sample the label or mask of the data sample nearest to it. '
            f"{remedy}."
        )
    return coded_entries.flatten(axis, axis + 1) if role.rows > 1 else coded_entries


def _same_for_all(entries: Tensor, axis: int) -> bool:
    """Whether an expanded tensor, or a mask of numbers, is the same for all samples. Integers are not looked at."""
    if entries.stride(axis) == 0:
        return True
    if not entries.is_floating_point() or not readable(entries, True):
        return False
    return bool((entries == entries.narrow(axis, 0, 1)).all())


def _along(axis: int, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(x.movedim(axis, 0)).movedim(0, axis) if axis else function(x)


def kinds_of(leaves: list[Any]) -> str:
    """The kinds of leaves, for an error message."""
    return ", ".join(sorted({str(getattr(leaf, "dtype", type(leaf).__name__)) for leaf in leaves})) or "nothing"


def check_batch_axis(block: str, leaf: Tensor, axis: int, expected: int, name: str) -> None:
    """Raise BatchError for an output without the batch axis."""
    if batch_along(leaf, axis) != expected:
        where = "first axis" if axis == 0 else f"axis {axis}"
        raise BatchError(
            f"block {block!r} gives a tensor of shape {tuple(leaf.shape)}, whose {where} is not the batch "
            f"({name} = {expected}). Choose a block that keeps the batch axis, or name the axis with `batch_axis`."
        )
