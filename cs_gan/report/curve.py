"""Metric curves, drawn from the CSV tables of runs."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Tables = dict[str, list[dict[str, str]]]


def save_curve(path: Path, tables: Mapping[str, Path], columns: list[str] | None = None) -> None:
    """Plot scores against steps, one panel a score and one line a run; whole or not at all.

    Args:
        path: a ``.png`` file.
        tables: label -> metrics.csv with a ``step`` column.
        columns: which scores; all but step, seconds and standard deviations by default.

    Raises:
        ValueError: if no table holds a score.
    """
    rows = read_tables(tables)
    columns = columns or score_columns(rows, tables.values())
    figure = Figure(figsize=(5.2 * len(columns), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        draw_score(axes, rows, column)
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=110)
    os.replace(partial, path)


def read_tables(tables: Mapping[str, Path]) -> Tables:
    """label -> lines of a CSV table."""
    rows = {}
    for label, path in tables.items():
        with path.open(newline="") as file:
            rows[label] = list(csv.DictReader(file))
    return rows


def score_columns(tables: Tables, sources: Iterable[Path]) -> list[str]:
    """The scores of all tables, the distance first.

    Raises:
        ValueError: if there is none; names the ``sources``.
    """
    keys = dict.fromkeys(key for table in tables.values() for key in (table[0] if table else {}))
    columns = [key for key in keys if key not in ("step", "seconds") and not key.endswith(" std")]
    if not columns:
        raise ValueError(f"no scores in {', '.join(map(str, sources))}.")
    return columns


def draw_score(axes: Axes, tables: Tables, column: str) -> None:
    """One score against steps, a line a run."""
    scores: list[float] = []
    for label, table in tables.items():
        kept = [row for row in table if row.get(column)]
        values = [float(row[column]) for row in kept]
        scores += values
        axes.plot([int(row["step"]) for row in kept], values, marker="o", markersize=3, label=label)
    axes.set(xlabel="step (generator updates)", ylabel=column)
    if column.startswith("F") and all(score > 0 for score in scores):
        axes.set_yscale("log")  # a distance falls by orders of magnitude
    axes.grid(alpha=0.3, which="both")
    if len(tables) > 1:
        axes.legend()
