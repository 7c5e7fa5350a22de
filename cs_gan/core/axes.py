"""Where the batch lies in what a block takes and gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from cs_gan.errors import BlockError

BatchAxis = int | Mapping[str, int]
ATTENTION = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


@dataclass(frozen=True)
class Axes:
    """The batch axis of the first tensor and that of all others, and where integers may have theirs."""

    takes: tuple[int, int] = (0, 0)
    gives: tuple[int, int] = (0, 0)
    integers: tuple[int, ...] = (0,)  # the first of these axes that is as long as the batch
    dims: int | None = None  # of the first tensor, where fewer would mean that there is no batch


def axes_of(block: nn.Module, axis: int) -> Axes:
    """As the user says, or as torch fixes it for its own recurrent and attention modules.

    Hidden states are (layers, batch, features) whatever ``batch_first`` says; attention weights and
    padding masks are (batch, length), whatever it says too.
    """
    block = getattr(block, "_orig_mod", block)  # torch.compile's wrapper
    if isinstance(block, nn.RNNBase):
        first = 0 if block.batch_first else 1
        return Axes((first, 1), (first, 1), dims=3)
    if isinstance(block, ATTENTION):
        attention = block if isinstance(block, nn.MultiheadAttention) else block.self_attn
        first = 0 if attention.batch_first else 1
        return Axes((first, first), (first, 0), dims=3)
    return Axes((axis, axis), (axis, axis), tuple(dict.fromkeys((axis, 0))))


def batch_axes(blocks: Mapping[str, nn.Module], batch_axis: BatchAxis) -> dict[str, Axes]:
    """The axes of every block.

    Raises:
        BlockError: if the mapping names a block that is not coded.
    """
    if isinstance(batch_axis, int):
        return {name: axes_of(block, batch_axis) for name, block in blocks.items()}
    unknown: Iterable[str] = batch_axis.keys() - blocks.keys()
    if unknown:
        raise BlockError(
            f"batch_axis names {sorted(unknown)}, which are not coded: the coded blocks are {list(blocks)}."
        )
    return {name: axes_of(block, batch_axis.get(name, 0)) for name, block in blocks.items()}


def batch_along(tensor: Tensor, axis: int) -> int | None:
    """The tensor's length along the axis; None if it has no such axis."""
    return tensor.shape[axis] if -tensor.dim() <= axis < tensor.dim() else None
