"""Parquet, in the form in which the Hugging Face Hub stores data sets of images."""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image

from cs_gan.data.formats import open_picture
from cs_gan.data.named_labels import numbered
from cs_gan.data.sources import ImageSource, check_bytes
from cs_gan.errors import DataError

IMAGE_COLUMNS = ("image", "img", "images", "jpg", "png", "picture", "photo")
"""The column that counts, the first that there is, if several hold images."""
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "cls", "target")
"""The column that counts, the first that there is, if several hold classes, or none says that it does."""

_LOCK = threading.Lock()


def parquet_source(path: Path) -> ImageSource:
    """The images and labels of one Parquet file, one row each.

    An image is a struct ``{bytes, path}``, as the feature Image of Hugging Face's datasets stores it, or plain bytes.
    The names of the classes are those of the feature ClassLabel in the file's metadata. Images are read by row groups,
    of which a few are kept in memory.

    Raises:
        DataError: if pyarrow isn't installed, the file is broken or holds no column of images, or several.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f'{path} is Parquet, which pyarrow reads: pip install ".[parquet]", or pyarrow.') from error
    try:
        with parquet.ParquetFile(path) as file:
            schema, about = file.schema_arrow, file.metadata
            features = _features(schema.metadata or {})
            column = _image_column(path, schema, features)
            label, remark = _label_column(schema, features)
            values = file.read(columns=[label]).column(label).to_pylist() if label else None
            sizes = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
    except DataError:
        raise
    except Exception as error:  # ArrowInvalid, OSError, and what a broken Thrift header brings
        raise DataError(
            f"{path} can't be read as Parquet ({type(error).__name__}: {error}). It is truncated or damaged. Get it "
            "again."
        ) from error
    ends = list(accumulate(sizes))

    def read(i: int) -> Image.Image:
        group = bisect_right(ends, i)
        with _LOCK:  # two threads would read one group twice
            pictures = _group(path, column, group)
        return open_picture(_content(pictures[i - ends[group] + sizes[group]].as_py()))

    known = _names(features.get(label or "", {}))
    labels, classes, said = numbered(path, values, known)
    names = [f"{path}: row {i}" for i in range(ends[-1] if ends else 0)]
    return ImageSource(names, read, labels, "all", _group.cache_clear, classes, remark=remark + said)


@lru_cache(maxsize=8)  # as many as there are threads that decode; see decode.py
def _group(path: Path, column: str, group: int) -> Any:  # -> a pyarrow column
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column]).column(column)


def _content(value: object) -> bytes:
    """The bytes of an image. DataError for a row that has none."""
    if isinstance(value, dict):
        if value.get("bytes") is None and value.get("path"):
            raise DataError(
                f"the row has only the path {value['path']!r:.200}, not the image. Save the data set with its images "
                "in it (datasets' push_to_hub does), or give the folder of the images."
            )
        value = value.get("bytes")
    if not isinstance(value, bytes):
        raise DataError("the row has no image. Remove it.")
    check_bytes(len(value))
    return value


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """The features by column that Hugging Face's datasets writes into the schema; none in other files."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return (
        {name: each for name, each in features.items() if isinstance(each, dict)} if isinstance(features, dict) else {}
    )


def _image_column(path: Path, schema: Any, features: Mapping[str, Mapping[str, Any]]) -> str:
    from pyarrow import types

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def holds_images(field: Any) -> bool:
        struct = types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
        type_name = features.get(field.name, {}).get("_type", "Image" if struct else "Value")
        return type_name in ("Image", "Value") and (
            is_bytes(field.type) or (struct and is_bytes(field.type.field("bytes").type))
        )

    columns = [field.name for field in schema if holds_images(field)]
    named = [name for name in IMAGE_COLUMNS if name in columns]
    if len(columns) == 1 or named:
        return str((named or columns)[0])
    if not columns:
        raise DataError(
            f"{path} has no column of images. It has: {', '.join(schema.names)}. Images are read that are stored as "
            "files (PNG, JPEG) in a struct {bytes, path} or as bytes."
        )
    raise DataError(f"{path} has several columns of images: {', '.join(columns)}. Name the one to read 'image'.")


def _label_column(schema: Any, features: Mapping[str, Mapping[str, Any]]) -> tuple[str | None, str]:  # -> it, a remark
    from pyarrow import types

    def is_label(field: Any) -> bool:
        return bool(types.is_integer(field.type) or types.is_string(field.type) or types.is_large_string(field.type))

    there = [field.name for field in schema if is_label(field)]
    class_columns = [name for name in there if features.get(name, {}).get("_type") == "ClassLabel"]
    named = [name for name in LABEL_COLUMNS if name in (class_columns or there)]
    column = named[0] if named else class_columns[0] if len(class_columns) == 1 else None
    if column is None:
        return None, f", no labels: {', '.join(class_columns)} all hold classes" if class_columns else ""
    return column, f", labels of {column}" if len(class_columns) > 1 else ""


def _names(feature: Mapping[str, Any]) -> Sequence[str]:
    names = feature.get("names") or ()
    return [str(name) for name in names] if isinstance(names, list | tuple) else ()
