"""Which object codes a block: a block is coded by one at a time."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

from torch import nn

from cs_gan.errors import BlockError

# Kept beside the modules, not on them, so that an attached model still copies, pickles and saves as if nothing were
# there; and weakly, so that blocks are free again when their owner is gone.
_ATTACHED: weakref.WeakKeyDictionary[nn.Module, weakref.ref[object]] = weakref.WeakKeyDictionary()


def refuse_attached(blocks: Mapping[str, nn.Module]) -> None:
    """Refuse blocks that have an owner.

    Raises:
        BlockError: names the block.
    """
    for name, block in blocks.items():
        owner = _ATTACHED.get(block)
        if owner is not None and owner() is not None:
            raise BlockError(
                f"block {name!r} is coded already: call detach() on the CodedSmoothing that holds it first."
            )


def attach(blocks: Mapping[str, nn.Module], owner: object) -> None:
    """Say whose they are."""
    for block in blocks.values():
        _ATTACHED[block] = weakref.ref(owner)


def release(blocks: Mapping[str, nn.Module]) -> None:
    """Let them be nobody's."""
    for block in blocks.values():
        _ATTACHED.pop(block, None)
