"""Files that a run writes while it may be killed: JSON lines, and text that is replaced whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cs_gan.errors import CheckpointError
from cs_gan.files import write_text

Row = dict[str, Any]
"""The object of one line."""


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append a JSON line. An incomplete last line, left by a kill, is removed first.

    Raises:
        CheckpointError: if it can't be written.
    """
    with written(path), path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(row).encode() + b"\n")


LOG_LINE: Mapping[str, type] = {"step": int}
"""What each line of log.jsonl has."""
METRICS_LINE: Mapping[str, type] = {"step": int, "scores": dict, "primary": str, "better": str, "provenance": dict}
"""What each line of metrics.jsonl has."""


def read_lines(path: Path, keys: Mapping[str, type] | None = None) -> list[Row]:
    """The rows of a file of JSON lines; none if there is no file. An incomplete last line is ignored.

    Args:
        path: the file.
        keys: what each line has, and of which type.

    Raises:
        CheckpointError: for a line that is not a JSON object, or lacks a key.
    """
    if not path.exists():
        return []
    *lines, _half = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}, line {number}, is damaged: {error}. Remove that line.") from error
        if problem := lacking(row, keys or {}):
            raise CheckpointError(f"{path}, line {number}, {problem}. Remove that line.")
        rows.append(row)
    return rows


def lacking(value: object, keys: Mapping[str, type]) -> str:
    """What a value from a file lacks to be an object with these keys; empty if it lacks nothing."""
    if not isinstance(value, dict):
        return "is no JSON object"
    for key, kind in keys.items():
        if not isinstance(value.get(key), kind) or isinstance(value[key], bool):
            return f"has no {key!r} of type {kind.__name__}"
    return ""


def readable_lines(path: Path) -> list[Row]:
    """The rows of a file of JSON lines that have a step; none if there is no file. What can't be read is skipped.

    For a report. A kill can leave the last line incomplete, even within a character.
    """
    rows = []
    for text in read_text(path).splitlines():
        try:
            row = json.loads(text)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def read_text(path: Path) -> str:
    """The text of a file as far as it can be read; empty if there is no file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a file of JSON lines atomically. Without rows, no file is created."""
    if rows or path.exists():
        write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_whole(path: Path, text: str) -> None:
    """Replace a text file atomically.

    Raises:
        CheckpointError: if it can't be written. The file does not change.
    """
    with written(path):
        write_text(path, text)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """A context that says which file couldn't be written and what to do. The system's message for a full disk doesn't.

    Raises:
        CheckpointError: for an OSError inside.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"can't write {path}: {error.strerror or error}. The last checkpoint is unchanged. Free some space and "
            "start again with the same command."
        ) from error
