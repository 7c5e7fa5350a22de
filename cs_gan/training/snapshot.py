"""Snapshots: one safetensors file with the averaged generator and the configuration that builds it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cs_gan.errors import CheckpointError


def save_snapshot(path: Path, generator: nn.Module, config: dict[str, Any], step: int) -> None:
    """Write the generator's weights and, as metadata, the configuration and the step; whole or not at all.

    Raises:
        CheckpointError: if it can't be written; an older snapshot stays.
    """
    # clone() unshares tied weights, which safetensors refuses.
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in generator.state_dict().items()}
    partial = path.with_suffix(".partial")
    try:
        save_file(tensors, partial, metadata={"config": json.dumps(config), "step": str(step)})
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"can't write the snapshot {path}: {error}. Make room or choose another folder."
        ) from error


def read_snapshot(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights and ``{"config": ..., "step": ...}``.

    Raises:
        CheckpointError: if the file is missing or no snapshot.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        return tensors, {"config": json.loads(metadata["config"]), "step": int(metadata["step"])}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is no snapshot of a run: {error}.") from error
