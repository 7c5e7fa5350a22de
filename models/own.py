"""A network of someone's own, named as ``package.module:Class``.

A name from a file must not decide what is imported, because an import runs code. So only names that the user has given
come here; a snapshot's own are for messages.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

from torch import nn


class ForeignCode(ValueError):
    """A file names a class of someone's own, and the user hasn't given it."""


def own_class(name: str, key: str) -> type[nn.Module]:
    """The class that ``package.module:Class`` names. The current folder can be imported from.

    Args:
        name: as the user gave it.
        key: the option it was given for, for messages.

    Errors: ValueError for a name of another form, a module that can't be imported, or anything but an nn.Module class.
    """
    module_name, _, class_name = name.partition(":")
    if not module_name or not class_name.isidentifier():
        raise ValueError(f"{key} = {name!r} must be package.module:Class, such as my_gan:Generator")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # last, so that no file here takes the place of an installed package
    importlib.invalidate_caches()  # the file may be younger than this process
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module does when it is imported
        raise ValueError(
            f"{key} = {name!r}: importing {module_name} failed ({_line(error)}). Start where {module_name} can be "
            f"imported; the current folder is {here}"
        ) from error
    loaded = getattr(module, class_name, None)
    if not isinstance(loaded, type) or not issubclass(loaded, nn.Module):
        place = getattr(module, "__file__", None) or module_name
        raise ValueError(f"{key} = {name!r}: {place} has no class {class_name} that is a torch.nn.Module")
    return loaded


def own_options(options: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The keyword arguments of one network: the shared ones, and those in the mapping of its name.

    Args:
        options: such as ``{"width": 32, "generator": {"latent_dim": 64}}``.
        part: generator or critic.
    """
    shared = {key: value for key, value in options.items() if not _of_one(key, value)}
    return shared | (dict(options[part]) if _of_one(part, options.get(part)) else {})


def build_own(make: type[nn.Module], options: Mapping[str, Any], part: str) -> nn.Module:
    """A network of a class with its options. Errors: ValueError if the class doesn't take them."""
    arguments = own_options(options, part)
    try:
        return make(**arguments)
    except Exception as error:
        call = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise ValueError(
            f"options: {make.__module__}:{make.__name__}({call}) failed ({_line(error)}). Give the arguments of both "
            f"networks, or of this one alone as options.{part}.<name>"
        ) from error


def _of_one(key: str, value: Any) -> bool:
    return key in ("generator", "critic") and isinstance(value, Mapping)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
