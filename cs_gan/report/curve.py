"""Picture and table of scores, from ``metrics.jsonl``."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from cs_gan.errors import DataError
from cs_gan.report.chart import draw, name_groups, save_figure
from cs_gan.report.panels import score_panels
from cs_gan.report.run import read_evaluations

MOST_PANELS = 5


def save_curve(path: Path, tables: Mapping[str, Path]) -> None:
    """Plot scores against steps as a PNG, one panel a score and one line a run; whole or not at all.

    Args:
        path: a ``.png`` file.
        tables: label -> ``metrics.jsonl``.

    Raises:
        DataError: if no table holds a score.
    """
    panels = score_panels({label: [read_evaluations(table)] for label, table in tables.items()})[:MOST_PANELS]
    if not panels:
        raise DataError(f"no scores in {', '.join(map(str, tables.values()))}: evaluate the run first.")
    figure = Figure(figsize=(4.8 * len(panels), 3.4), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes, panel)
    if len(tables) > 1:
        name_groups(figure, list(tables))
    save_figure(figure, path, dpi=110)


def save_metrics_csv(path: Path, metrics: Path) -> None:
    """Write ``metrics.jsonl`` as a table: step, every score of any line, seconds; whole or not at all."""
    rows = [
        {"step": one.step, **{name: f"{value:.6g}" for name, value in one.scores.items()}}
        | {"seconds": one.provenance.get("seconds", "")}
        for one in read_evaluations(metrics)
    ]
    scores = dict.fromkeys(key for row in rows for key in row if key not in ("step", "seconds"))
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", *scores, "seconds"])
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)
