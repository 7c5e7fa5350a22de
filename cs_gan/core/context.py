"""What this thread or asyncio task is inside of: contexts of CodedSmoothing, and coded passes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from cs_gan.errors import BlockError

# Context variables and not attributes: another thread, or another asyncio task, has its own values.
_ENTERED: ContextVar[tuple[object, ...]] = ContextVar("cs_gan_entered", default=())
_CODED: ContextVar[bool] = ContextVar("cs_gan_coded_pass", default=False)


def in_coded_pass() -> bool:
    """Whether a coded block is running on coded samples now.

    Forward hooks of your own run in coded passes too, because a hook may change what the block computes. A hook that
    only looks, such as one that keeps features, should return at once if this is True.
    """
    return _CODED.get()


@contextmanager
def coded_now() -> Iterator[None]:
    """A context in which :func:`in_coded_pass` is True."""
    before = _CODED.get()
    _CODED.set(True)
    try:
        yield
    finally:
        _CODED.set(before)


@contextmanager
def entered(key: object) -> Iterator[None]:
    """A context in which :func:`is_inside` is True for the key, in this thread or task only."""
    _ENTERED.set((*_ENTERED.get(), key))
    try:
        yield
    finally:
        _ENTERED.set(tuple(other for other in _ENTERED.get() if other is not key))


def is_inside(key: object) -> bool:
    """Whether this thread or task has entered the key's context."""
    return any(other is key for other in _ENTERED.get())


# -- transformers ----------------------------------------------------------------------------------


@contextmanager
def uncollected() -> Iterator[None]:
    """A context in which transformers collects no outputs.

    Since version 5 it gathers hidden states, attentions and router logits with hooks that stay on the modules. Those
    of a coded pass would come among them, and into losses made of them. The hooks append to lists, which are cut back
    to their length here.
    """
    lengths = [(entries, len(entries)) for entries in _collected().values() if isinstance(entries, list)]
    try:
        yield
    finally:
        for entries, length in lengths:
            del entries[length:]


def refuse_collecting(block: str) -> None:
    """Raise BlockError if transformers collects outputs, because inside substitute() those are of coded samples."""
    if collected := [name for name in _collected() if not name.startswith("_")]:
        raise BlockError(
            f"block {block!r} runs in substitute() while transformers collects {collected}, which would be those of "
            "coded samples. Call the model without them (output_hidden_states=False, output_attentions=False, "
            "output_router_logits=False)."
        )


def _collected() -> dict[str, Any]:
    """What transformers' active collector has gathered so far, by name (seen in 5.24; a private attribute)."""
    module = sys.modules.get("transformers.utils.output_capturing")
    collector = getattr(module, "_active_collector", None)
    return (collector.get() if collector is not None else None) or {}
