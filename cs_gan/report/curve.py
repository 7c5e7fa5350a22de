"""Metric curves, drawn from the CSV tables of runs."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def save_curve(path: Path, tables: Mapping[str, Path], columns: list[str] | None = None) -> None:
    """Plot scores against steps, one panel a score and one line a run; whole or not at all.

    Args:
        path: a ``.png`` file.
        tables: label -> metrics.csv with a ``step`` column.
        columns: which scores; all but step, seconds and standard deviations by default.

    Raises:
        ValueError: if no table holds a score.
    """
    rows = {label: _read(table) for label, table in tables.items()}
    columns = columns or list(
        dict.fromkeys(
            key
            for table in rows.values()
            for key in (table[0] if table else {})
            if key not in ("step", "seconds") and not key.endswith(" std")
        )
    )
    if not columns:
        raise ValueError(f"no scores in {', '.join(map(str, tables.values()))}.")
    figure = Figure(figsize=(5.2 * len(columns), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        scores: list[float] = []
        for label, table in rows.items():
            kept = [row for row in table if row.get(column)]
            scores += (values := [float(row[column]) for row in kept])
            axes.plot([int(row["step"]) for row in kept], values, marker="o", markersize=3, label=label)
        axes.set(xlabel="step (generator updates)", ylabel=column)
        if column.startswith("F") and all(score > 0 for score in scores):
            axes.set_yscale("log")  # a distance falls by orders of magnitude
        axes.grid(alpha=0.3, which="both")
        if len(rows) > 1:
            axes.legend()
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=110)
    os.replace(partial, path)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
