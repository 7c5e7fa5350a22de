"""The penalty of a block: the discrepancy of its decoded and its plain outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cs_gan.core.batch import check_batch_axis, kinds_of
from cs_gan.core.code import SplineCode
from cs_gan.core.discrepancy import Discrepancy
from cs_gan.core.known import Axes
from cs_gan.core.nestings import leaves_of
from cs_gan.core.roles import Seen, outputs_left_out
from cs_gan.errors import BatchError


def output_penalty(
    block: str, output: Any, coded: Any, axes: Axes, code: SplineCode, discrepancy: Discrepancy, seen: Seen
) -> Tensor:
    """The discrepancy of decoded and plain output, summed over output tensors, in float32 or float64.

    Integers and masked scores among the outputs are left out.
    """
    leaves, structure = leaves_of(output)
    coded_leaves, coded_structure = leaves_of(coded)
    if structure != coded_structure:
        raise BatchError(f"block {block!r} gave another structure for coded samples than for the batch.")
    pairs = [pair for pair in zip(leaves, coded_leaves, strict=True) if isinstance(pair[0], Tensor)]
    terms, left_out = [], outputs_left_out([plain for plain, _ in pairs], seen)
    for index, (plain, other) in enumerate(pairs):
        if index not in left_out and plain.numel() > 0:
            axis = axes.gives[index > 0]
            check_batch_axis(block, plain, axis, code.K, "K")
            check_batch_axis(block, other, axis, code.N, "N")
            # For the discrepancy the batch is always the first axis, and complex numbers are pairs of real ones.
            plain_output, coded_output = _real(_front(axis, plain)), _real(_front(axis, other))
            dtype = torch.promote_types(plain_output.dtype, torch.float32)
            term = discrepancy(code.decode(coded_output.to(dtype)), plain_output.to(dtype))
            if not isinstance(term, Tensor) or term.dim():
                kind = f"shape {tuple(term.shape)}" if isinstance(term, Tensor) else f"a {type(term).__name__}"
                raise BatchError(f"the discrepancy gave {kind} for block {block!r}: it must give a scalar tensor.")
            terms.append(term)
    if not terms:
        raise BatchError(
            f"block {block!r} gives no floating-point tensor with features but {kinds_of(leaves)}: there is nothing to "
            "decode. Choose a block before it, or let it give tensors, dataclasses, tuples, lists or dicts."
        )
    return torch.stack(terms).sum() if len(terms) > 1 else terms[0]


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def _front(axis: int, x: Tensor) -> Tensor:
    return x.movedim(axis, 0) if axis else x
