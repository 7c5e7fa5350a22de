"""The input of every command of evaluate.py."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from accelerate import PartialState
from torch import nn

from cs_gan.data import ImageStore
from cs_gan.errors import CheckpointError, ConfigError
from cs_gan.files import file_sha256
from cs_gan.runs import RunFolder
from cs_gan.training import Snapshot
from models import own_class
from models.base import require_fit

if TYPE_CHECKING:
    from models import PretrainedGenerator

OWN_GENERATOR = "model.generator"
"""The option of evaluate.py that names a class of someone's own, as the recipe's key does."""

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Job:
    """The arguments of a command, and the snapshot that they name."""

    arguments: argparse.Namespace
    overrides: list[str]
    state: PartialState
    path: Path
    snapshot: Snapshot
    device: torch.device

    def beside(self, name: str, given: Path | None) -> Path:
        """The path for a result: the given one, or this name beside the snapshot. Creates its folder.

        The name gets that of the snapshot, such as ``samples-best.png``, unless that is snapshot.safetensors.
        """
        plain = Path(name)
        own = name if self.path.stem == "snapshot" else f"{plain.stem}-{self.path.stem}{plain.suffix}"
        path = given or self.path.with_name(own)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def about(self) -> dict[str, Any]:
        """The description of the scored network, for provenance."""
        return {"step": self.snapshot.step, "snapshot": str(self.path), "snapshot_sha256": file_sha256(self.path)}

    @cached_property
    def generator(self) -> PretrainedGenerator:
        """The generator of the snapshot; CheckpointError if it has none.

        A class of someone's own is imported only by the name that ``--model.generator`` gives, never by the snapshot's.
        """
        from models import PretrainedGenerator  # needs huggingface_hub, which training scripts do without

        given = vars(self.arguments).get(OWN_GENERATOR)
        try:
            own = own_class(given, f"--{OWN_GENERATOR}") if given else None
        except ValueError as error:
            raise ConfigError(f"{error}.") from error
        try:
            return PretrainedGenerator.from_snapshot(self.path, self.device, own)
        except ValueError as error:
            raise CheckpointError(str(error)) from error

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
        """The command-line words for the snapshot's recipe, with the changes of this call and of the command line.

        Args:
            changed: sections that replace those of the snapshot.
            keys: a pattern of the sections that the command line may change, such as ``data|metrics``.

        Raises:
            ConfigError: for any other word.
        """
        for word in self.overrides:
            if not re.match(rf"--(({keys})\.\w+|seed)=", word):
                sections = ", ".join(f"--{key}.<key>=..." for key in keys.split("|"))
                raise ConfigError(
                    f"{word!r}: you can only change {sections} and --seed=..., each written with an equals sign."
                )
        self._refuse_unasked_folder()
        return [f"--config={json.dumps(self.snapshot.config | changed)}", *self.overrides]

    def _refuse_unasked_folder(self) -> None:
        """Raise ConfigError if a file, and not the user, says which folder to read.

        A snapshot beside the config.yaml of its run may say it, but not a whole disk or home folder.
        """
        data = self.snapshot.config.get("data")
        root = data.get("root") if isinstance(data, dict) else None
        if not isinstance(root, str) or any(word.startswith("--data.root=") for word in self.overrides):
            return
        place = Path(root).expanduser().resolve()
        everything = place in {Path(place.anchor), Path.home(), Path.home().parent}
        if everything or not RunFolder(self.path.parent).config.exists():
            outside = "" if everything else ", and lies outside the folder of its run"
            raise ConfigError(
                f"{self.path} was trained on images in {root}{outside}: say where they are by --data.root=..."
            )


@dataclass(frozen=True)
class Command:
    """A command: a function for each kind of snapshot, and its options as (default, arguments of argparse).

    ``--<section>.<key>=`` changes the recipe in these ``sections``.
    """

    runs: dict[str, Callable[[Job], None]]
    options: dict[str, tuple[Any, dict[str, Any]]]
    sections: str = ""

    @property
    def help(self) -> str:
        """The description in --help."""
        return " ".join(run.__doc__ or "" for run in self.runs.values())


def with_provenance(
    scores: dict[str, float],
    primary: str,
    test: ImageStore,
    seconds: float,
    processes: int,
    about: Mapping[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """Scores on test images with their provenance, in the form of a line of metrics.jsonl. Higher is better."""
    reference = {"data": test.name}
    reference |= {key: getattr(test, key) for key in ("split", "preparation", "fingerprint")}
    provenance = {"reference": reference, "num_images": len(test), **more, "processes": processes, "seconds": seconds}
    return {"scores": scores, "primary": primary, "better": "higher", "provenance": {**provenance, **about}}


def load_network(
    build: Callable[..., Network], snapshot: Snapshot, path: Path, device: torch.device, what: str
) -> Network:
    """The network of a snapshot, in evaluation mode; CheckpointError if it is no snapshot of ``what``."""
    try:
        require_fit(build, snapshot.model, snapshot.tensors)
        network = build(**snapshot.model)
        network.load_state_dict(snapshot.tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is no snapshot of {what}: {' '.join(str(error).split())}") from error
    # channels_last as in training; on a CPU it makes convolutions of images a third faster.
    network.to(device).to(memory_format=torch.channels_last)
    return network.eval()
