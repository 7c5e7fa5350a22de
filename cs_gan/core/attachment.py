"""Which CodedSmoothing codes a block. At most one can do so at a time."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Protocol

from torch import nn

from cs_gan.errors import BlockError

# Not stored on the modules, so an attached model is copied, pickled and saved as before. The references are weak, so
# blocks become free when their owner is deleted.
_ATTACHED: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Owner]] = weakref.WeakKeyDictionary()


class Owner(Protocol):
    """A CodedSmoothing, as its blocks' next owner sees it."""

    def refuse_inside(self, what: str) -> None:
        """Raise BlockError inside a context."""

    def be_replaced(self) -> None:
        """Detach all blocks, because another owner takes some."""


def claim(model: nn.Module, blocks: Mapping[str, nn.Module], owner: Owner, replace: bool) -> None:
    """Attach blocks to an owner. With ``replace``, detach their older owners first.

    Raises:
        BlockError: if a block has an owner already, an older owner is inside a context, or DataParallel copies a block.
    """
    refuse_replicas(model, blocks)
    older = {name: current for name, block in blocks.items() if (current := owner_of(block)) is not None}
    if older and not replace:
        raise BlockError(
            f"block {next(iter(older))!r} is coded already: call detach() on its CodedSmoothing first, or give "
            "replace=True to the new one."
        )
    for name, current in older.items():  # check all before detaching any
        current.refuse_inside(f"block {name!r} can't be taken")
    for current in older.values():
        current.be_replaced()
    attach(blocks, owner)


def refuse_replicas(model: nn.Module, blocks: Mapping[str, nn.Module]) -> None:
    """Raise an error for blocks that DataParallel would copy to several devices and run in parallel threads."""
    for wrapper in model.modules():
        if not isinstance(wrapper, nn.DataParallel) or len(wrapper.device_ids) < 2:
            continue  # on one device or a CPU it calls the module itself
        copied = set(wrapper.module.modules())
        if names := [name for name, block in blocks.items() if block in copied]:
            raise BlockError(
                f"DataParallel copies blocks {names} to {len(wrapper.device_ids)} devices in every call, and copies "
                "can't be coded: use DistributedDataParallel, or one device."
            )


def owner_of(block: nn.Module) -> Owner | None:
    """The CodedSmoothing that codes the block, or None."""
    owner = _ATTACHED.get(block)
    return None if owner is None else owner()


def attach(blocks: Mapping[str, nn.Module], owner: Owner) -> None:
    """Record the owner of the blocks."""
    for block in blocks.values():
        _ATTACHED[block] = weakref.ref(owner)


def release(blocks: Mapping[str, nn.Module]) -> None:
    """Remove the owner of the blocks."""
    for block in blocks.values():
        _ATTACHED.pop(block, None)
