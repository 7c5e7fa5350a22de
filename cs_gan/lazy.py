"""Names of a package that are imported when they are first used, so that a program pays only for what it uses."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazily(package: str, *others: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that imports its names under ``if TYPE_CHECKING:``.

    Type checkers read these imports, and so does this function: each name is written once. The modules that they name
    are attributes too, and so are ``others``. A name must not be that of a module, because Python would put the module
    in its place.
    """
    module = sys.modules[package]
    source = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    blocks = [line.body for line in source.body if isinstance(line, ast.If)]
    imports = [line for block in blocks for line in block if isinstance(line, ast.ImportFrom)]
    homes = {alias.name: str(line.module) for line in imports for alias in line.names}
    modules = {home.removeprefix(f"{package}.") for home in homes.values()} | {*others}

    def get(name: str) -> Any:
        if name in homes:
            value = getattr(import_module(homes[name]), name)
        elif name in modules:
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(module, name, value)
        return value

    return get, lambda: sorted({*vars(module), *homes, *modules})
