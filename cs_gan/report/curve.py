"""Picture and table of one run's scores, from its ``metrics.jsonl``."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from matplotlib.figure import Figure

from cs_gan.errors import DataError
from cs_gan.files import write_text
from cs_gan.report.chart import draw, save_figure
from cs_gan.report.panels import score_panels
from cs_gan.runs import read_evaluations

MOST_PANELS = 5


def save_curve(path: Path, metrics: Path) -> None:
    """Plot a run's scores against steps as a PNG, atomically, with one panel per score.

    Raises:
        DataError: if ``metrics`` contains no score.
    """
    panels = score_panels({"": [read_evaluations(metrics)]})[:MOST_PANELS]
    if not panels:
        raise DataError(f"{metrics} contains no scores. Evaluate the run first.")
    figure = Figure(figsize=(4.8 * len(panels), 3.4), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes, panel)
    save_figure(figure, path, dpi=110)


def save_metrics_csv(path: Path, metrics: Path) -> None:
    """Write ``metrics.jsonl`` as a table: step, all scores, seconds. Atomic."""
    rows = [
        {"step": one.step, **{name: f"{value:.6g}" for name, value in one.scores.items()}}
        | {"seconds": one.provenance.get("seconds", "")}
        for one in read_evaluations(metrics)
    ]
    scores = dict.fromkeys(key for row in rows for key in row if key not in ("step", "seconds"))
    table = io.StringIO()
    writer = csv.DictWriter(table, ["step", *scores, "seconds"])
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue())
