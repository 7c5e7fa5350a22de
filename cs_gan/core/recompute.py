"""Gradient checkpointing around a coded block: the plain pass is recomputed, the coded pass is not.

A checkpoint discards the tensors saved inside it and runs its content again in the backward. The hooks of
:meth:`CodedSmoothing.observe` are usually removed by then. So the tensors that a coded pass saves are kept, and calls
that come from a backward are not coded. The coded pass needs the same memory as without a checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointFunction

from cs_gan.errors import BlockError

# Private API that older versions of torch don't have. Without it, torch raises its own error in the backward.
_saved_tensors_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda _: None)


def recomputing() -> bool:
    """Whether this call comes from a backward."""
    return torch._C._current_graph_task_id() != -1


def checkpointed() -> bool:
    """Whether a checkpoint (use_reentrant=False) currently handles saved tensors."""
    hooks = _saved_tensors_hooks(False)
    return hooks is not None and hooks[0].__qualname__.startswith("_checkpoint_hook.")


@contextmanager
def without_checkpoint(block: str) -> Iterator[None]:
    """A context in which tensors are saved as without a checkpoint, and the random state does not change.

    The recomputation draws its dropout masks again from the random state at the start of the checkpoint. It does not
    draw those of the coded pass.

    Raises:
        BlockError: for a reentrant checkpoint and for a selective one.
    """
    if not torch.is_grad_enabled():
        refuse_reentrant(block)
    if not checkpointed():
        yield
        return
    if torch._C._len_torch_dispatch_stack():
        raise BlockError(
            f"block {block!r} runs inside selective activation checkpointing (context_fn), which would hand its coded "
            "pass's results to the plain one: leave context_fn out, or checkpoint inside the block."
        )
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), torch.autograd.graph.saved_tensors_hooks(_same, _same):
        yield


def refuse_reentrant(block: str) -> None:
    """Raise BlockError inside a reentrant checkpoint: without gradients there, a penalty would have no effect."""
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_code is CheckpointFunction.forward.__code__:
            raise BlockError(
                f"block {block!r} runs inside torch.utils.checkpoint with use_reentrant=True, which computes no "
                "gradient here: give checkpoint(..., use_reentrant=False)."
            )
        frame = frame.f_back


def refuse_checkpoint(block: str) -> None:
    """Raise BlockError for substitute() inside a checkpoint. The recomputation would lack code and permutation."""
    if not torch.is_grad_enabled():
        refuse_reentrant(block)
    if checkpointed():
        raise BlockError(
            f"block {block!r} runs inside torch.utils.checkpoint in substitute(): the backward would recompute it "
            "under another permutation or none. Checkpoint inside the block instead, or run without."
        )


def refuse_checkpoint_inside(module: nn.Module, _args: Any) -> None:
    """A forward pre-hook that raises BlockError if a module of a block runs inside a checkpoint.

    It is for modules with special settings during the coded pass, which a recomputation after it would not have.
    """
    if checkpointed():  # :func:`without_checkpoint` hides a checkpoint around the block
        raise recomputed_otherwise(module)


def recomputed_otherwise(module: nn.Module) -> BlockError:
    """The error for a module whose recomputation would differ from the coded pass."""
    return BlockError(
        f"a {type(module).__name__} runs inside a checkpoint in a block's coded pass, and would be recomputed "
        "without the settings of that pass: checkpoint around the coded block instead of inside it."
    )


def _same(value: Any) -> Any:
    return value
