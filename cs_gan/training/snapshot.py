"""Snapshots: one safetensors file with a network's weights and, as metadata, everything needed to use them.

Each metadata entry is JSON: ``kind`` of network, ``model`` (the keyword arguments that rebuild it), ``config`` (the
resolved recipe), ``step``, ``scores`` (of that step, or null) and ``images`` (what it was trained on, or null; older
snapshots lack it).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cs_gan.errors import CheckpointError, ConfigError
from cs_gan.files import replacing


@dataclass(frozen=True)
class Snapshot:
    """A snapshot read from a file.

    Attributes:
        tensors: the network's state dict, on the CPU.
        kind: such as ``"gan"``, for a generator.
        model: arguments that rebuild the network, such as ``{"name": "dcgan16", "channels": 1}`` for
            ``models.build_gan``.
        config: the resolved recipe.
        step: number of training steps.
        scores: the scores at this step by name, or None if it wasn't scored.
        images: fingerprint and class names of the training images, or None if unknown.
    """

    tensors: dict[str, Tensor]
    kind: str
    model: dict[str, Any]
    config: dict[str, Any]
    step: int
    scores: dict[str, Any] | None = None
    images: dict[str, Any] | None = None


_ENTRIES: dict[str, Any] = {"kind": str, "model": dict, "config": dict, "step": int, "scores": dict | None}
_LATER: dict[str, Any] = {"images": dict | None}


def save_snapshot(
    path: Path,
    network: nn.Module,
    *,
    kind: str,
    model: dict[str, Any],
    config: dict[str, Any],
    step: int,
    scores: dict[str, Any] | None = None,
    images: dict[str, Any] | None = None,
) -> None:
    """Write the network's weights and the data of :class:`Snapshot` atomically.

    Raises:
        CheckpointError: if it can't be written or a weight is not finite. An older snapshot stays.
    """
    # clone() separates tied weights, which safetensors can't save.
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
    about = {"kind": kind, "model": model, "config": config, "step": step, "scores": scores, "images": images}
    try:
        _require_finite(tensors)
        content = save(tensors, metadata={key: json.dumps(value, allow_nan=False) for key, value in about.items()})
        with replacing(path) as file:
            file.write(content)
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"can't write the snapshot {path}: {error}. An older one is untouched: make room, or choose another folder."
        ) from error


def read_snapshot(path: Path) -> Snapshot:
    """Read and check a snapshot.

    Raises:
        CheckpointError: if the file is missing, damaged or not a snapshot, or a weight is not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        if missing := sorted(_ENTRIES.keys() - metadata.keys()):
            raise ValueError(f"its metadata lacks {', '.join(missing)}")
        about = {key: json.loads(metadata.get(key, "null")) for key in _ENTRIES | _LATER}
        for key, expected in (_ENTRIES | _LATER).items():
            if not isinstance(about[key], expected):
                raise ValueError(f"its {key} is {about[key]!r}")
        _require_finite(tensors)
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a snapshot of a run: {error}. Give a run's snapshot.safetensors."
        ) from error
    return Snapshot(tensors, **about)


def find_snapshot(given: Path, best: bool) -> Path:
    """The snapshot file for a path. If it is missing, the error lists files nearby."""
    if best and given.is_file():
        raise ConfigError(f"--best needs a run folder, but {given} is a file.")
    path = given / ("best.safetensors" if best else "snapshot.safetensors") if given.is_dir() else given
    if path.is_file():
        return path
    there = next(parent for parent in path.absolute().parents if parent.is_dir())
    snapshots = sorted(there.glob("*.safetensors")) or sorted(there.glob("*/*.safetensors"))
    nearby = ", ".join(str(file.relative_to(there)) for file in snapshots[:6]) or "no snapshot"
    raise CheckpointError(f"{path} doesn't exist. {there} contains {nearby}.")


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite, or it is a mask: only 0 and -inf."""
    if bool(torch.isfinite(tensor).all()):
        return True
    return bool(((tensor == 0) | torch.isneginf(tensor)).all()) and bool((tensor == 0).any())


def _require_finite(tensors: dict[str, Tensor]) -> None:
    bad = [key for key, value in tensors.items() if not is_finite(value)]
    if bad:
        raise ValueError(f"NaN or infinite numbers in {', '.join(bad[:4])}")
