"""Choosing blocks of a model: by name, by pattern or by the module itself."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn

from cs_gan.errors import BlockError
from cs_gan.names import did_you_mean

Choice = str | nn.Module | type[nn.Module]


def select_blocks(model: nn.Module, chosen: Iterable[Choice], exclude: Iterable[Choice] = ()) -> dict[str, nn.Module]:
    """The chosen blocks by name, each module once, in the order of ``model.named_modules()``.

    A name is one of ``model.named_modules()``; ``""`` is the model itself. In a pattern ``*``, ``?`` and ``[...]``
    match within one part of a dotted name: ``blocks.*`` finds ``blocks.0`` but not ``blocks.0.conv``. A class finds all
    modules of it and of its subclasses.

    Raises:
        BlockError: if nothing is chosen or all of it is excluded, the model doesn't have a chosen block (the message
            suggests similar names), or a block can't have hooks.
    """
    ids = _chosen_ids(model, chosen, "blocks")
    if not ids:
        raise BlockError('blocks=[]: choose at least one block; "" is the whole model.')
    excluded = _chosen_ids(model, exclude, "exclude")
    if excluded and not ids & excluded:
        raise BlockError(
            "exclude takes away none of the chosen blocks. A part of a coded block can't be left out: choose smaller "
            "blocks."
        )
    ids -= excluded
    if not ids:
        raise BlockError("exclude leaves no block: choose more in blocks, or exclude fewer.")
    # named_modules() without duplicates: a module with two names is one block.
    blocks = {name: module for name, module in model.named_modules() if id(module) in ids}
    for name, module in blocks.items():
        if isinstance(module, torch.jit.ScriptModule):
            raise BlockError(
                f"block {name!r} is a ScriptModule, which takes no hooks: code the module that it was made from, or a "
                "Python module that contains it."
            )
    return blocks


def _chosen_ids(model: nn.Module, chosen: Iterable[Choice], argument: str) -> set[int]:
    """The ids of the modules that an argument chooses."""
    if isinstance(chosen, str | nn.Module | type):
        shown = chosen.__name__ if isinstance(chosen, type) else repr(chosen)
        raise BlockError(f"{argument}={shown}: give a list, such as {argument}=[{shown}].")
    named, ids = dict(model.named_modules(remove_duplicate=False)), set[int]()
    for choice in chosen:
        if not isinstance(choice, str | nn.Module) and not (isinstance(choice, type) and issubclass(choice, nn.Module)):
            kind = choice.__name__ if isinstance(choice, type) else type(choice).__name__
            raise BlockError(f"{argument} holds a {kind}: give names, patterns or modules, or classes of modules.")
        names = [name for name, module in named.items() if _matches(choice, name, module)]
        if not names:
            raise BlockError("exclude: " * (argument == "exclude") + _not_found(choice, model, list(named)))
        ids.update(id(named[name]) for name in names)
    return ids


def _matches(choice: Choice, name: str, module: nn.Module) -> bool:
    if isinstance(choice, type):
        return isinstance(module, choice)
    if isinstance(choice, nn.Module):
        return module is choice
    parts, patterns = name.split("."), choice.split(".")
    if choice == name:  # also if the name itself contains a bracket
        return True
    if choice == "" or name == "":
        return False
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _not_found(choice: Choice, model: nn.Module, names: list[str]) -> str:
    kind = type(model).__name__
    if isinstance(choice, type):
        held = ", ".join(sorted({type(module).__name__ for module in model.modules()}))
        return f"{kind} holds no {choice.__name__}. It has modules of the classes {held}."
    if isinstance(choice, nn.Module):
        return f"this {type(choice).__name__} is not a module of the {kind}: choose from model.named_modules()."
    # Suggest names with as many dots as the misspelt one, if there are any.
    peers = [name for name in names if name.count(".") == choice.count(".")] or names
    hint = did_you_mean(choice, peers, most=3, cutoff=0.4, show=repr) or did_you_mean(choice, names, most=3, show=repr)
    top_level = ", ".join(repr(name) for name in names if "." not in name)
    return f"{kind} has no block {choice!r}. {hint}{' ' if hint else ''}Its top-level blocks: {top_level}."


def nothing_ran(model: nn.Module | None, blocks: Mapping[str, nn.Module], context: str) -> BlockError:
    """The error for a context in which no coded block ran, with the likely reason."""
    return BlockError(f"none of the coded blocks {list(blocks)} ran inside {context}. {_why(model, blocks)}")


def some_did_not_run(model: nn.Module | None, missing: Mapping[str, nn.Module], context: str) -> str:
    """The warning for a context in which other coded blocks ran, with the likely reason."""
    return (
        f"of the coded blocks, {list(missing)} did not run inside {context}, so they were not coded. "
        f"{_why(model, missing)} If they run in other calls only, ignore this: it comes once."
    )


def _why(model: nn.Module | None, blocks: Mapping[str, nn.Module]) -> str:
    modules = set(model.modules()) if model is not None else set()
    if replaced := [name for name, block in blocks.items() if block not in modules]:
        return (
            f"{replaced} are no longer part of the model: they were replaced after CodedSmoothing was made. Make a new "
            "one for the model as it is now."
        )
    why = "Run the model inside it, in a way that reaches them."
    if "torch._dynamo" in sys.modules:  # without it nothing is compiled
        why += (
            " With torch.compile: a compiled model doesn't see the hooks if it, or another model of its class, was "
            "compiled and run before the context: compile the coded block, not what holds it."
        )
    return why
