"""The state that a block keeps between calls, and a context in which a pass does not change it."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from cs_gan.core.recompute import checkpointed, recomputed_otherwise
from cs_gan.errors import BlockError

_OF_MODULE = frozenset(vars(nn.Module()))  # attributes of every module: hooks, parameters, buffers, submodules
_CONTAINERS = (list, dict, set, deque)


@dataclass
class Parameters:
    """What passes inside :func:`unchanged` found out about a block's parameters.

    Attributes:
        compared: for which training modes of the block's modules the parameters before and after a pass were compared.
        as_buffers: the frozen parameters (``requires_grad=False``) that its forward changes: (module, parameter) names.
    """

    compared: set[tuple[bool, ...]] = field(default_factory=set)
    as_buffers: set[tuple[str, str]] = field(default_factory=set)


@contextmanager
def unchanged(subject: str, second: str, block: nn.Module, findings: Parameters) -> Iterator[None]:
    """A context for a second pass of a block. On exit its buffers, attributes and frozen parameters are as before.

    The pass works on copies. (Writing old values back would break the backward of the plain pass, which may have saved
    them.) For modules of your own this includes attributes: tensors, lists, dicts, sets and deques are copied, and
    reassigned attributes are restored. In-place changes to other objects are not noticed. torch's spectral norm is
    excluded because its vectors depend on weights, not on samples.

    Args:
        subject, second: the block and its second pass in words, for the error.
        block: any module.
        findings: of the earlier passes of this block. The first one in each training mode copies and compares all
            parameters, the others copy only what changes.

    Raises:
        BlockError: if the block changes a trainable parameter, or if a module whose state changes runs inside a
            checkpoint.
    """
    modules = {
        name: module
        for name, module in block.named_modules()
        if not isinstance(module, torch.jit.ScriptModule | _SpectralNorm)
    }
    modes = tuple(module.training for module in modules.values())
    compare = modes not in findings.compared and _comparable(block)
    twins = [(p, p.clone()) for p in block.parameters() if p.requires_grad] if compare else []
    versions = [
        (p, p._version)
        for m in modules.values()
        for p in m._parameters.values()
        if p is not None and not p.is_inference()
    ]
    copies: dict[int, Tensor] = {}  # by id, so modules that share a buffer also share its copy
    all_entries = [entries for named in modules.items() for entries in _entries(*named, findings, compare, copies)]
    in_checkpoint: set[nn.Module] = set()

    def note(module: nn.Module, _args: Any) -> None:
        if checkpointed():
            in_checkpoint.add(module)

    hooks = [m.register_forward_pre_hook(note) for m in _with_copies(all_entries)] if torch.is_grad_enabled() else []
    try:
        for entries in all_entries:
            entries.swap()
        yield
        for entries in all_entries:
            if entries.module in in_checkpoint and entries.moved():
                raise recomputed_otherwise(entries.module)
        moved = {id(p) for p, version in versions if p._version != version}
        if compare:
            moved |= {id(p) for p, twin in twins if not _same(p, twin)}
            findings.as_buffers |= {(e.name, own) for e in all_entries for own in e.moved_parameters()}
            findings.compared.add(modes)
    finally:
        for hook in hooks:
            hook.remove()
        for entries in all_entries:
            entries.put_back()
    if moved:
        inside = [own for own, parameter in block.named_parameters() if id(parameter) in moved]
        raise BlockError(
            f"{subject} changes its parameters {inside} in its own forward, and in {second} again. Change them outside "
            f"forward(), or make them buffers (register_buffer), which {second} leaves alone."
        )


class _Entries:
    """One dict of a module: its buffers, parameters or attributes. Copies replace the values during a pass."""

    def __init__(self, name: str, module: nn.Module, target: dict[str, Any], inside: dict[str, Any]) -> None:
        self.name, self.module, self.inside = name, module, inside
        self._target, self._before = target, dict(target)

    def swap(self) -> None:
        self._target.update(self.inside)

    def put_back(self) -> None:
        if len(self._target) > len(self._before):
            for name in self._target.keys() - self._before.keys():
                del self._target[name]
        self._target.update(self._before)

    def moved(self) -> bool:
        """Whether the pass has changed something. Call it before :meth:`put_back`."""
        if any(self._target.get(name) is not value for name, value in (self._before | self.inside).items()):
            return True
        pairs = [(value, self._before[name]) for name, value in self.inside.items()]
        return any(len(a) != len(b) if isinstance(a, _CONTAINERS) else not _same(a, b) for a, b in pairs)

    def moved_parameters(self) -> set[str]:
        """The names of frozen parameters whose values the pass has changed."""
        if self._target is not self.module._parameters:
            return set()
        return {name for name in self.inside if not _same(self._target[name], self._before[name])}


def _entries(
    name: str, module: nn.Module, findings: Parameters, compare: bool, copies: dict[int, Tensor]
) -> list[_Entries]:
    """The dicts of a module that a pass can change."""

    def copied(value: Tensor) -> Tensor:
        if id(value) not in copies:
            copies[id(value)] = value.detach().clone()
        return copies[id(value)]

    entries = []
    old_style = any(isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values())
    if module._buffers and not old_style:
        tensors = {k: copied(v) for k, v in module._buffers.items() if v is not None}
        entries.append(_Entries(name, module, module._buffers, tensors))
    if parameters := module._parameters:
        frozen = {
            k: copied(v)
            for k, v in parameters.items()
            if (compare or (name, k) in findings.as_buffers) and v is not None and not v.requires_grad
        }
        entries.append(_Entries(name, module, parameters, frozen))
    if not type(module).__module__.startswith("torch."):
        own, inside = vars(module), {}
        for attribute in own.keys() - _OF_MODULE:
            value = own[attribute]
            if type(value) in _CONTAINERS:
                inside[attribute] = copy.copy(value)
            elif type(value) is Tensor and not value.requires_grad:
                inside[attribute] = copied(value)
        entries.append(_Entries(name, module, own, inside))
    return entries


def _with_copies(all_entries: list[_Entries]) -> Iterable[nn.Module]:
    """Each module with copies, once."""
    return dict.fromkeys(entries.module for entries in all_entries if entries.inside)


def _comparable(block: nn.Module) -> bool:
    """Whether parameters can be copied and compared now: they are plain tensors, and nothing records operations."""
    if torch._C._len_torch_dispatch_stack() or torch._C._functorch.maybe_current_level() is not None:
        return False
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        return False
    return all(type(p) in (Tensor, nn.Parameter) and p.device.type != "meta" for p in block.parameters())


def _same(first: Tensor, second: Tensor) -> bool:
    """Equal values, NaN included."""
    if first is second or first.shape != second.shape:
        return first is second
    return bool(((first == second) | (first.isnan() & second.isnan())).all())
