"""What every command of evaluate.py is given."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Callable, Mapping
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

    @property
    def about(self) -> dict[str, Any]:
        """Which network a score is of, for its provenance."""
        return {"step": self.snapshot.step, "snapshot": str(self.path), "snapshot_sha256": sha256(self.path)}

    def keep_scores(self, result: Mapping[str, Any], what: str, name: str) -> None:
        """Print scores and write them with their provenance to ``--json``, or to a file of this name."""
        print(f"{self.path}, step {self.snapshot.step}{what}")
        width = max(map(len, result["scores"]))
        for key, value in result["scores"].items():
            print(f"  {key:<{width}}  {value:.6g}")
        for note in result["provenance"].get("notes", []):
            print(f"  note: {note}")
        path = self.beside(name, self.arguments.json)
        path.write_text(json.dumps(result, indent=2) + "\n")
        print(f"{self.arguments.command}: {path}")

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
    """A command: what runs for each kind of snapshot, and its options as (default, argparse's words).

    ``sections`` of the recipe may be changed by ``--<section>.<key>=``.
    """

    runs: dict[str, Callable[[Job], None]]
    options: dict[str, tuple[Any, dict[str, Any]]]
    sections: str = ""

    @property
    def help(self) -> str:
        """What it does."""
        return " ".join(run.__doc__ or "" for run in self.runs.values())


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
