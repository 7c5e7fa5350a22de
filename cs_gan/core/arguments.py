"""Arguments that hold objects, such as caches. A coded pass can't encode what is inside and must not change them."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.core.known import Axes
from cs_gan.core.nestings import batch_along, leaves_of
from cs_gan.errors import BatchError

_VALUES = (int, float, complex, str, bytes, type(None))
_CONSTANTS = (type, Enum, nn.Module, torch.Generator, torch.dtype, torch.device, torch.layout, torch.memory_format)
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType)
_LIMIT = 10_000  # members of an object that are compared


@dataclass(frozen=True)
class Argument:
    """An argument of a block that holds objects, and their contents before the call."""

    block: str
    name: str
    value: Any
    before: list[tuple[Any, int]]

    def refuse_change(self) -> None:
        """Raise BatchError if the call has changed the argument."""
        if not _equal(self.before, _contents(self.value)):
            raise BatchError(
                f"block {self.block!r} changes its argument {self.name} ({type(self.value).__name__}) during the call, "
                "and a coded pass would change it too. Call the model without it (a key-value cache of Hugging Face: "
                "use_cache=False), or choose a block that doesn't take it."
            )


def objects_among(block: str, inputs: Any, axes: Axes, K: int) -> list[Argument]:
    """The arguments that hold objects, before the call. Tensors, plain values and nestings of them are not objects.

    Raises:
        BatchError: if an object holds a tensor of the batch, because it would not be encoded.
    """
    args, kwargs = inputs
    found = []
    for key, value in [*enumerate(args), *kwargs.items()]:
        if isinstance(value, (Tensor, *_VALUES)) or not any(map(_is_object, leaves_of(value)[0])):
            continue
        name = repr(key) if isinstance(key, str) else f"number {key + 1}"
        argument = Argument(block, name, value, _contents(value))
        tensors = [entry for entry, _ in argument.before if isinstance(entry, Tensor) and entry.is_floating_point()]
        inside = {id(leaf) for leaf in leaves_of(value)[0]}  # these are encoded
        if any(batch_along(tensor, axes.takes) == K for tensor in tensors if id(tensor) not in inside):
            raise BatchError(
                f"block {block!r} got the argument {name} ({type(value).__name__}), which holds tensors of the batch: "
                "they would not be encoded. Call the model without it (a key-value cache of Hugging Face: "
                "use_cache=False), give the tensors themselves or a dataclass of them, or register the class with "
                "torch.utils._pytree."
            )
        found.append(argument)
    return found


def refuse_filled(block: str, given: Any, before: tuple[list[Any], Any]) -> None:
    """Raise BatchError if a block in substitute() has changed its lists and dicts. They are copies: changes are lost.

    ``given`` are the copies after the call, ``before`` their ``leaves_of`` before it.
    """
    leaves, structure = leaves_of(given)
    if structure != before[1] or any(a is not b for a, b in zip(leaves, before[0], strict=True)):
        raise BatchError(
            f"block {block!r} changes a list or dict that it is given, and inside substitute() that is a copy: let it "
            "return its results, or choose another block."
        )


def _is_object(leaf: Any) -> bool:
    return not isinstance(leaf, (Tensor, *_VALUES, *_CONSTANTS, *_CODE))


def _contents(value: Any) -> list[tuple[Any, int]]:
    """Everything inside an object: tensors with their version, other members with their length."""
    seen: set[int] = set()

    def walk(value: Any) -> Iterator[tuple[Any, int]]:
        if isinstance(value, Tensor):
            yield value, 0 if value.is_inference() else value._version
        elif not _is_object(value) or id(value) in seen:
            yield value, 0
        else:
            seen.add(id(value))
            members = _members(value)
            yield value, len(members)
            for member in members:
                yield from walk(member)

    return list(islice(walk(value), _LIMIT))


def _members(value: Any) -> list[Any]:
    members = [part for pair in value.items() for part in pair] if isinstance(value, dict) else []
    if isinstance(value, list | tuple | set | frozenset | deque | types.MappingProxyType):
        members = list(value)
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    members += [getattr(value, name) for name in slots if hasattr(value, name)]
    return members + list(getattr(value, "__dict__", {}).values())


def _equal(before: list[tuple[Any, int]], after: list[tuple[Any, int]]) -> bool:
    return len(before) == len(after) and all(
        size == other_size and (a is b or (isinstance(a, _VALUES) and type(a) is type(b) and a == b))
        for (a, size), (b, other_size) in zip(before, after, strict=True)
    )
