"""Writes small packed data: Parquet as the Hugging Face Hub has it, and WebDataset's tars."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

Pixels = npt.NDArray[np.uint8]


def random_images(n: int, size: int = 8, seed: int = 0) -> Pixels:  # -> (n, size, size, 3)
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_parquet(
    path: Path,
    images: Pixels,
    labels: Mapping[str, Sequence[Any]] | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
    *,
    column: str = "image",
    rows: int = 100,
) -> Path:
    """A file as datasets' push_to_hub writes it: structs {bytes, path}, features in the metadata, small row groups."""
    labels, classes = labels or {}, classes or {}
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    structs = [{"bytes": png(image), "path": f"{i}.png"} for i, image in enumerate(images)]
    columns = {column: pa.array(structs, struct)} | {name: pa.array(values) for name, values in labels.items()}
    features: dict[str, Any] = {column: {"_type": "Image"}}
    for name in labels:
        told = {"names": list(classes.get(name, ())), "_type": "ClassLabel"}
        features[name] = told if name in classes else {"dtype": "int64", "_type": "Value"}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=rows)
    return path


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
