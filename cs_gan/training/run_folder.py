"""The folder of a run: its files, and logs that survive a kill and a resume."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cs_gan.errors import CheckpointError, ConfigError
from cs_gan.files import lock, write_text

Row = dict[str, Any]


class RunFolder:
    """The files of one run.

    ::

        config.yaml         the resolved recipe
        log.jsonl           losses and speed, one line every log_every steps
        metrics.jsonl       scores with their provenance, one line per evaluation
        metrics.csv, curve.png, report.html     table, plot and page made from it
        scores.json         full scores of the final and the best network
        grid.png            the newest samples;  grids/step-<step>.png  all samples
        snapshot.safetensors    the averaged network now, with its configuration
        best.safetensors        the averaged network at its best score
        checkpoints/        everything a resume needs
        tracking/           TensorBoard's files
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.log = path / "log.jsonl"
        self.metrics = path / "metrics.jsonl"
        self.table = path / "metrics.csv"
        self.curve = path / "curve.png"
        self.report = path / "report.html"
        self.scores = path / "scores.json"
        self.grid = path / "grid.png"
        self.snapshot = path / "snapshot.safetensors"
        self.best = path / "best.safetensors"
        self.grids = path / "grids"
        self.checkpoints = path / "checkpoints"
        self.tracking = path / "tracking"

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Create the folder and lock it against a second run. A kill releases the lock.

        Raises:
            ConfigError: if it can't be written, or another process has locked it.
        """
        try:
            self.grids.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("w")
        except OSError as error:
            raise ConfigError(f"output_dir={self.path} can't be written: {error}. Choose another folder.") from error
        with file:
            if not lock(file):
                raise ConfigError(
                    f"another process is still writing to {self.path}. Wait for it to end, or give another "
                    "--output_dir."
                )
            yield

    def identity(self) -> str:
        """An id of eight letters that stays with this folder, for trackers that can continue a run."""
        path = self.path / ".id"
        if not path.exists():
            write_whole(path, uuid.uuid4().hex[:8])
        return path.read_text()

    def grid_at(self, step: int) -> Path:
        """The path of the sample grid of a step."""
        return self.grids / f"step-{step:08d}.png"


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


def read_lines(path: Path) -> list[Row]:
    """The rows of a file of JSON lines; none if there is no file. An incomplete last line is ignored.

    Raises:
        CheckpointError: for a line that is not a JSON object.
    """
    if not path.exists():
        return []
    *lines, _half = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(dict(json.loads(line)))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path}, line {number}, is damaged: {error}. Remove that line.") from error
    return rows


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
