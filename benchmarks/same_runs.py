"""Compare two finished runs of train_gan.py bit by bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from cs_gan.flat_keys import flatten
from cs_gan.runs import RunFolder, read_lines
from cs_gan.runs.settings import FREE_ON_RESUME
from cs_gan.training import list_checkpoints, read_checkpoint


def compare(whole: RunFolder, parts: RunFolder) -> list[tuple[str, str, bool]]:
    """What was compared, its size, and whether it is the same in two finished runs."""
    rows: list[tuple[str, str, bool]] = []
    folders = (whole, parts)
    (whole_tensors, whole_state), (parts_tensors, parts_state) = (
        read_checkpoint(list_checkpoints(folder.checkpoints)[-1]) for folder in folders
    )
    for group in sorted({".".join(key.split(".")[:2]) for key in whole_tensors.keys() | parts_tensors.keys()}):
        whole_group, parts_group = (
            {k: v for k, v in tensors.items() if k.startswith(f"{group}.")}
            for tensors in (whole_tensors, parts_tensors)
        )
        rows.append(
            (group, f"{sum(v.numel() for v in whole_group.values()):,} numbers", same_bits(whole_group, parts_group))
        )
    rows.append(("optimisers' settings, step", f"step {whole_state['step']}", _rest(whole_state) == _rest(parts_state)))
    for name in ("snapshot", "best"):
        tensors = [load_file(getattr(folder, name)) for folder in folders]
        rows.append((f"{name}.safetensors", f"{len(tensors[0])} tensors", same_bits(*tensors)))
    for name, unit, read in _FILES:
        contents = [read(folder) for folder in folders]
        rows.append((name, f"{len(contents[0])} {unit}", contents[0] == contents[1]))
    return rows


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether names, dtypes, shapes and all bits are equal. 0.0 and -0.0 differ here."""
    return save(first) == save(second)


def _log(folder: RunFolder) -> Any:
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in read_lines(folder.log)]


def _curve(folder: RunFolder) -> Any:
    return [(row["step"], row["scores"]) for row in read_lines(folder.metrics)]


def _scores(folder: RunFolder) -> Any:
    return {name: (row["step"], row["scores"]) for name, row in json.loads(folder.scores.read_text()).items()}


def _grids(folder: RunFolder) -> Any:
    return {path.name: path.read_bytes() for path in (folder.path / "grids").iterdir()}


_FILES: tuple[tuple[str, str, Callable[[RunFolder], Any]], ...] = (
    ("log.jsonl, all but the speed", "lines", _log),
    ("metrics.jsonl, the scores", "lines", _curve),
    ("scores.json, the scores", "networks", _scores),
    ("grids", "pictures", _grids),
)


def _rest(state: dict[str, Any]) -> dict[str, Any]:
    """The state without folder, times and settings that may change on a resume."""
    config = {key: value for key, value in flatten(state["config"]).items() if key not in FREE_ON_RESUME}
    rows = [(row["step"], row["scores"]) for row in state["metrics"]]
    return {**state, "config": config, "metrics": rows, "best": None}
