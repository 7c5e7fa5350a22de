"""What every command of evaluate.py is given."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from cs_gan.errors import ConfigError
from cs_gan.training import Snapshot


@dataclass(frozen=True)
class Job:
    """A command's arguments, and what their snapshot holds."""

    arguments: argparse.Namespace
    overrides: list[str]
    state: PartialState
    path: Path
    snapshot: Snapshot
    device: torch.device

    def beside(self, name: str, given: Path | None) -> Path:
        """Where a result goes: the path given, or this name beside the snapshot; its folder is made."""
        path = given or self.path.with_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def recipe_words(self, changed: dict[str, Any], keys: str) -> list[str]:
        """The words that parse to the snapshot's recipe, with changes and what the command line may change of it.

        Args:
            changed: sections that take the place of the snapshot's.
            keys: a pattern of what the command line may change, such as ``data|metrics``.

        Raises:
            ConfigError: for any other word.
        """
        for word in self.overrides:
            if not re.match(rf"--(({keys})\.\w+|seed)=", word):
                sections = ", ".join(f"--{key}.<key>=..." for key in keys.split("|"))
                raise ConfigError(
                    f"{word!r}: what can be changed is {sections} and --seed=..., each written with an equals sign."
                )
        return [f"--config={json.dumps(self.snapshot.config | changed)}", *self.overrides]


@dataclass(frozen=True)
class Command:
    """A command: what runs, its options as (default, argparse's words), and what it takes.

    ``kind`` is that of its snapshots; ``sections`` of the recipe may be changed by ``--<section>.<key>=``.
    """

    run: Callable[[Job], None]
    options: dict[str, tuple[Any, dict[str, Any]]]
    kind: str
    sections: str = ""
