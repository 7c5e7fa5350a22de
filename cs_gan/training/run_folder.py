"""The folder of a run: what lies where, and tables that survive a kill and a resume."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cs_gan.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows, where two runs in one folder are not noticed
    fcntl = None  # type: ignore[assignment]


class RunFolder:
    """Where everything of one run lies.

    ::

        config.yaml         the resolved recipe
        log.csv             losses and speed by step
        metrics.csv         scores by step;  curve.png  their picture
        provenance.json     what the scores were computed from
        grid.png            the newest samples;  grids/step-<step>.png  all of them
        snapshot.safetensors    the averaged generator, its configuration inside
        checkpoints/        what a resume needs
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.log = path / "log.csv"
        self.metrics = path / "metrics.csv"
        self.curve = path / "curve.png"
        self.provenance = path / "provenance.json"
        self.grid = path / "grid.png"
        self.snapshot = path / "snapshot.safetensors"
        self.checkpoints = path / "checkpoints"

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Make the folder and hold it: no second run writes to it meanwhile. A kill frees it.

        Raises:
            ConfigError: if it can't be written, or another process holds it.
        """
        try:
            (self.path / "grids").mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise ConfigError(f"output_dir={self.path} can't be written: {error}. Choose another folder.") from error
        with lock:
            if fcntl is not None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise ConfigError(
                        f"another process is still writing to {self.path}: wait for it to end, or give another "
                        "--output_dir."
                    ) from None
            yield

    def grid_at(self, step: int) -> Path:
        """Where the sample grid of a step goes."""
        return self.path / "grids" / f"step-{step:08d}.png"


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line to a CSV table; a column that is new to the table rewrites it with that column."""
    rows = read_rows(path)
    columns = list(dict.fromkeys([key for known in rows[:1] for key in known] + list(row)))
    if rows and list(rows[0]) == columns:
        with path.open("a", newline="") as file:
            csv.DictWriter(file, columns).writerow(row)
    else:
        _write(path, columns, [*rows, dict(row)])


def read_rows(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV table, or none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def drop_rows_from(path: Path, step: int) -> None:
    """Forget the lines of ``step`` and later: a resume writes them again."""
    rows = read_rows(path)
    kept = [row for row in rows if int(row["step"]) < step]
    if len(kept) < len(rows):
        _write(path, list(rows[0]), kept)


def _write(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)
