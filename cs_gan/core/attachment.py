"""Which object codes a block: a block is coded by one at a time."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from torch import nn

from cs_gan.errors import BlockError

# Kept beside the modules, not on them, so that an attached model still copies, pickles and saves as if nothing were
# there; and weakly, so that blocks are free again when their owner is gone.
_ATTACHED: weakref.WeakKeyDictionary[nn.Module, weakref.ref[object]] = weakref.WeakKeyDictionary()


def claim(model: nn.Module, blocks: Mapping[str, nn.Module], owner: object, replace: bool) -> None:
    """Attach blocks that have no owner; with ``replace`` the owners that they have are detached first.

    Raises:
        BlockError: names the block that has an owner, the context that an older owner is in, or a DataParallel.
    """
    refuse_replicas(model, blocks)
    older = {name: found for name, block in blocks.items() if (found := owner_of(block)) is not None}
    if older and not replace:
        raise BlockError(
            f"block {next(iter(older))!r} is coded already: call detach() on the CodedSmoothing that holds it first, "
            "or give the new one replace=True, which does so."
        )
    for name, one in older.items():  # before any is detached
        if one._inside:
            raise BlockError(f"block {name!r} can't be taken inside {one._inside[0]}(): leave the context first.")
    for one in older.values():
        one.detach()
        one._gone = "of an object that was replaced: a new one has its blocks (replace=True). Use the new one."
    attach(blocks, owner)


def refuse_replicas(model: nn.Module, blocks: Mapping[str, nn.Module]) -> None:
    """Refuse blocks that DataParallel would copy to several devices, where they run in threads at once."""
    for wrapper in model.modules():
        if not isinstance(wrapper, nn.DataParallel) or len(wrapper.device_ids) < 2:
            continue  # on one device, and on a CPU, it calls the module itself
        copied = set(wrapper.module.modules())
        if names := [name for name, block in blocks.items() if block in copied]:
            raise BlockError(
                f"DataParallel copies blocks {names} to {len(wrapper.device_ids)} devices in every call, and copies "
                "can't be coded: use DistributedDataParallel, or one device."
            )


def owner_of(block: nn.Module) -> Any:
    """The CodedSmoothing that codes it, if one does."""
    owner = _ATTACHED.get(block)
    return None if owner is None else owner()


def attach(blocks: Mapping[str, nn.Module], owner: object) -> None:
    """Say whose they are."""
    for block in blocks.values():
        _ATTACHED[block] = weakref.ref(owner)


def release(blocks: Mapping[str, nn.Module]) -> None:
    """Let them be nobody's."""
    for block in blocks.values():
        _ATTACHED.pop(block, None)
