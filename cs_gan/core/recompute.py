"""Gradient checkpointing around a coded block: the plain pass is recomputed, the coded one is not.

A checkpoint saves nothing of what runs inside it and runs it again in the backward, where the hooks of
:meth:`CodedSmoothing.observe` are mostly gone. So what a coded pass saves is kept out of the checkpoint, and a
call that comes from a backward is not coded. It costs the memory of the coded pass, as without a checkpoint.
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

# Private, and not in every torch of ours: without it torch's own error comes, in the backward.
_saved_tensors_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda _: None)


def recomputing() -> bool:
    """Whether this call comes from a backward."""
    return torch._C._current_graph_task_id() != -1


def checkpointed() -> bool:
    """Whether a checkpoint (use_reentrant=False) is what now handles saved tensors."""
    hooks = _saved_tensors_hooks(False)
    return hooks is not None and hooks[0].__qualname__.startswith("_checkpoint_hook.")


@contextmanager
def kept(block: str) -> Iterator[None]:
    """Inside, tensors are saved as if there were no checkpoint, and no random number is used up.

    The recomputation draws its dropout masks from the state at the checkpoint's beginning, without those of
    a coded pass between them.

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
    """A reentrant checkpoint runs its inside without gradients: a penalty there would train nothing.

    Raises:
        BlockError: if one is around this call.
    """
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_code is CheckpointFunction.forward.__code__:
            raise BlockError(
                f"block {block!r} runs inside torch.utils.checkpoint with use_reentrant=True, which computes no "
                "gradient here: give checkpoint(..., use_reentrant=False)."
            )
        frame = frame.f_back


def refuse_checkpoint(block: str) -> None:
    """For substitute(): the recomputation would know neither the code nor the permutation.

    Raises:
        BlockError: if this call runs inside a checkpoint.
    """
    if not torch.is_grad_enabled():
        refuse_reentrant(block)
    if checkpointed():
        raise BlockError(
            f"block {block!r} runs inside torch.utils.checkpoint in substitute(): the backward would recompute it "
            "under another permutation or none. Checkpoint inside the block instead, or run without."
        )


def refuse_checkpoint_inside(module: nn.Module, _args: Any) -> None:
    """A forward pre-hook for modules that a coded pass runs otherwise than a recomputation after it would.

    Raises:
        BlockError: if the module runs inside a checkpoint of the block's own.
    """
    if checkpointed():  # one around the block is hidden by :func:`kept`
        raise recomputed_otherwise(module)


def recomputed_otherwise(module: nn.Module) -> BlockError:
    """The error for such a module."""
    return BlockError(
        f"a {type(module).__name__} runs inside a checkpoint in a block's coded pass, and would be recomputed "
        "without what is set for that pass: checkpoint around the coded block instead of inside it."
    )


def _same(value: Any) -> Any:
    return value
