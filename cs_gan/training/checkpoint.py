"""Checkpoints: safetensors and JSON in a folder that is complete or does not exist.

::

    step-00000500/
        tensors.safetensors   networks, averages and optimisers, by dotted name
        state.json            step, configuration, optimiser settings
        manifest.json         sha256 of both; written last, read first

A folder is written under a temporary name, synced and renamed. So a kill at any moment leaves the previous checkpoint
unchanged. Old checkpoints are pruned only after that, and renamed before removal. So a folder ``step-*`` was complete
once, and is damaged if one of its files is missing.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cs_gan.errors import CheckpointError
from cs_gan.files import file_sha256
from cs_gan.runs import METRICS_LINE, lacking

_FILES = ("tensors.safetensors", "state.json")
FORMAT = 1
"""Of the folder, in manifest.json. Checkpoints from before it was written have none and are of format 1."""
_STATE = {
    **{"step": int, "optimizers": dict, "config": dict, "circumstances": dict, "machine": dict},
    **{"losses": dict, "metrics": list},
}
"""The keys of state.json that a resume reads, and their types."""
# Optimiser settings that belong to the device and not to the run, because a run may change its device.
_OF_THE_DEVICE = ("fused", "capturable", "foreach", "differentiable")


def save_checkpoint(
    folder: Path,
    step: int,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    state: dict[str, Any],
    keep: int = 2,
) -> Path:
    """Write ``folder/step-<step>``, then delete all but the last ``keep`` checkpoints (including this one).

    Raises:
        CheckpointError: if it can't be written (a full disk, a read-only folder). Older ones stay.
    """
    tensors, settings = _to_tensors(modules, optimizers)
    final = folder / f"step-{step:08d}"
    partial = folder / f".partial-{step:08d}"
    try:
        for rest in (*folder.glob(".partial-*"), *folder.glob(".pruned-*")):  # of a run that was killed
            shutil.rmtree(rest, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(tensors, partial / "tensors.safetensors")
        (partial / "state.json").write_text(json.dumps({"step": step, "optimizers": settings, **state}))
        manifest = {"format": FORMAT, **{name: file_sha256(partial / name) for name in _FILES}}
        (partial / "manifest.json").write_text(json.dumps(manifest))
        for path in (*partial.iterdir(), partial):
            _sync(path)
        shutil.rmtree(final, ignore_errors=True)  # a damaged one, because a resume renames those of later steps
        partial.rename(final)
        _sync(folder)
    except Exception as error:  # safetensors has its own exception for a full disk
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"can't write the checkpoint {final}: {error}. Older checkpoints are untouched; make room or choose "
            "another output_dir, and start again with the same command."
        ) from error
    # Keep the new one, even if there are checkpoints of later steps.
    others = [path for path in list_checkpoints(folder) if path != final]
    for old in others[: max(0, len(others) + 1 - keep)]:
        pruned = old.with_name(f".pruned-{old.name}")
        with suppress(OSError):  # one checkpoint too many must not end a run
            old.rename(pruned)
        shutil.rmtree(pruned, ignore_errors=True)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first. Only :func:`read_checkpoint` checks whether they are damaged."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def abandon_after(folder: Path, step: int) -> None:
    """Rename a run's checkpoints later than ``step``, so that no resume takes them for the newest."""
    for later in list_checkpoints(folder):
        if later.name > f"step-{step:08d}":
            target = later.with_name(f"abandoned-{later.name}")
            shutil.rmtree(target, ignore_errors=True)
            later.rename(target)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state of a checkpoint, verified before anything is loaded.

    Raises:
        CheckpointError: if a file is missing or its hash differs from the manifest's.
    """
    if not path.is_dir() or list_checkpoints(path) or list_checkpoints(path / "checkpoints"):
        whole = [*list_checkpoints(path), *list_checkpoints(path / "checkpoints"), *list_checkpoints(path.parent)]
        hint = f"There is --resume={whole[0] if len(whole) == 1 else whole[-1]}" if whole else "Give a step-* folder"
        raise CheckpointError(f"--resume={path} is no checkpoint. {hint}, or --resume=auto for the newest of the run.")
    if damage := _damage(path):
        raise CheckpointError(f"{damage} {_others(path)}")
    state = _read_json(path / "state.json")
    if problem := lacking(state, _STATE) or _bad_rows(state):
        raise CheckpointError(f"{path / 'state.json'} {problem}: another version of cs_gan wrote it. {_others(path)}")
    return load_file(path / "tensors.safetensors"), state


def restore(
    tensors: dict[str, Tensor],
    state: dict[str, Any],
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
) -> None:
    """Load the result of :func:`read_checkpoint` into networks and optimisers of the same names.

    Raises:
        CheckpointError: if names or shapes of a network differ, or if an optimiser's state is missing or does not fit.
            Nothing is changed then.
    """
    parts = {name: _fitting(tensors, name, module) for name, module in modules.items()}
    for name, optimizer in optimizers.items():
        expected = [len(group["params"]) for group in optimizer.param_groups]
        if [len(group["params"]) for group in state["optimizers"].get(name, [])] != expected:
            raise CheckpointError(f"the checkpoint's optimiser of the {name} is missing or another one's.")
    for name, module in modules.items():
        module.load_state_dict(parts[name])
    for name, optimizer in optimizers.items():
        _load_optimizer(optimizer, _under(tensors, f"optimizers.{name}."), state["optimizers"][name])


def begin_from(
    tensors: dict[str, Tensor],
    state: dict[str, Any],
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
) -> list[str]:
    """Load the weights of another run into networks, and the moments of its optimisers if they fit.

    Optimisers keep their settings, such as weight decay. A module without weights (LeCam's averages) may be missing in
    the other run.

    Returns:
        The names of the parts that were not in the other run and start fresh.

    Raises:
        CheckpointError: if a network is missing or differs. Nothing is changed then.
    """
    held = {key.split(".")[1] for key in tensors if key.startswith("modules.")}
    absent = [name for name in modules if name not in held]
    for name in absent:
        if any(True for _ in modules[name].parameters()):
            raise CheckpointError(f"the checkpoint holds {', '.join(sorted(held))}, and no {name}.")
    parts = {name: _fitting(tensors, name, module) for name, module in modules.items() if name in held}
    for name, part in parts.items():
        modules[name].load_state_dict(part)
    fresh = [f"the {name}" for name in absent]
    for name, optimizer in optimizers.items():
        ours, theirs = optimizer.param_groups, state["optimizers"].get(name, [])
        if [_moments_of(group) for group in ours] == [_moments_of(group) for group in theirs]:
            groups = [mine | {"params": group["params"]} for mine, group in zip(ours, theirs, strict=True)]
            _load_optimizer(optimizer, _under(tensors, f"optimizers.{name}."), groups)
        else:
            fresh.append(f"the optimiser of the {name}")
    return fresh


def _moments_of(group: dict[str, Any]) -> tuple[int, list[str]]:
    """The number of parameters in an optimiser's group, and the keys that tell Adam from SGD."""
    return len(group["params"]), sorted(group.keys() & {"betas", "momentum"})


def _fitting(tensors: dict[str, Tensor], name: str, module: nn.Module) -> dict[str, Tensor]:
    """The module's tensors in a checkpoint. Raises CheckpointError if they don't fit."""
    part = _under(tensors, f"modules.{name}.")
    live = {key: value.shape for key, value in module.state_dict().items()}
    stored = {key: value.shape for key, value in part.items()}
    if live != stored:
        odd = sorted(key for key in live | stored if live.get(key) != stored.get(key))
        raise CheckpointError(f"the checkpoint's {name} is another network: {', '.join(odd[:4])} differ.")
    return part


def _load_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], settings: list[dict[str, Any]]
) -> None:
    """Load moments, named ``<index>.<name>``, and the settings of each group except those of the device."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, moment = key.split(".", 1)
        moments.setdefault(int(index), {})[moment] = value
    ours = optimizer.param_groups
    groups = [
        group | {key: mine[key] for key in _OF_THE_DEVICE if key in mine}
        for group, mine in zip(settings, ours, strict=True)
    ]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    for group, mine in zip(optimizer.param_groups, ours, strict=True):
        if isinstance(mine["lr"], Tensor):  # keep this tensor: a CUDA graph reads it
            group["lr"] = mine["lr"].fill_(group["lr"])
    for parameter, live_moments in optimizer.state.items():
        for moment, value in live_moments.items():
            if value.shape == parameter.shape:  # with the parameter's strides, as fast kernels require
                live_moments[moment] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _to_tensors(
    modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    settings: dict[str, Any] = {}
    for name, module in modules.items():
        tensors |= {f"modules.{name}.{key}": value for key, value in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        settings[name] = [
            {key: float(value) if isinstance(value, Tensor) else value for key, value in group.items()}
            for group in state["param_groups"]
        ]
        for index, moments in state["state"].items():
            for moment, value in moments.items():
                tensors[f"optimizers.{name}.{index}.{moment}"] = value
    # contiguous() gives plain storage (safetensors knows no strides), clone() unshares it.
    return {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}, settings


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _read_json(path: Path) -> Any:
    """The content of a file; CheckpointError if it is no JSON."""
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} can't be read: {error}.") from error


def _bad_rows(state: dict[str, Any]) -> str:
    """What is wrong with the evaluations and losses of a state; empty if nothing is."""
    for row in state["metrics"]:
        if problem := lacking(row, METRICS_LINE):
            return f"holds an evaluation that {problem}"
    if not all(isinstance(values, list) for values in state["losses"].values()):
        return "holds losses that are no lists"
    if not all(isinstance(groups, list) for groups in state["optimizers"].values()):
        return "holds optimisers that are no lists of groups"
    return "holds a recipe without training" if not isinstance(state["config"].get("training"), dict) else ""


def _damage(path: Path) -> str:
    """What is wrong with the files of a checkpoint; empty if nothing is."""
    manifest = path / "manifest.json"
    try:
        expected = json.loads(manifest.read_text())
        if not isinstance(expected, dict) or any(name not in expected for name in _FILES):
            return f"{path} is no whole checkpoint: {manifest} doesn't list its files."
        if expected.get("format", 1) != FORMAT:
            return f"{path} has format {expected['format']}, and this version of cs_gan reads format {FORMAT}."
        for name in _FILES:
            if file_sha256(path / name) != expected[name]:
                return f"{path / name} is damaged (its sha256 is not the manifest's)."
    except OSError as error:
        return f"{path} is no whole checkpoint: {error}."
    except (ValueError, RecursionError) as error:
        return f"{path} is no whole checkpoint: {manifest} is damaged ({error})."
    return ""


def _others(path: Path) -> str:
    for other in reversed(list_checkpoints(path.parent)):
        if other != path and not _damage(other):
            return f"The newest whole one can be used: --resume={other}"
    return "There is no other checkpoint. Start a new run in another output_dir."


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
