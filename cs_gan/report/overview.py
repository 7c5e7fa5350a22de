"""Runs at a glance: the newest grid of each, and their curves in one panel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from cs_gan.errors import DataError
from cs_gan.report.curve import draw_score, read_tables, score_columns


def save_overview(path: Path, runs: Sequence[Path]) -> None:
    """One PNG for one run or several: a panel with every run's distance, then the grid of each.

    Args:
        path: a ``.png`` file.
        runs: run folders with ``grid.png`` and ``metrics.csv``; each is labelled by its name.

    Raises:
        DataError: if a folder is no run or has no scores yet.
    """
    for run in runs:
        for name in ("grid.png", "metrics.csv"):
            if not (run / name).is_file():
                raise DataError(f"{run} has no {name}: give the folder of a run that was scored at least once.")
    tables = read_tables({run.name: run / "metrics.csv" for run in runs})
    figure = Figure(figsize=(4.4 * (1 + len(runs)), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    first, *others = figure.subplots(1, 1 + len(runs))
    draw_score(first, tables, score_columns(tables, runs)[0])
    for axes, run in zip(others, runs, strict=True):
        with Image.open(run / "grid.png") as picture:
            axes.imshow(np.asarray(picture.convert("RGB")), interpolation="nearest")
        axes.set_title(f"{run.name}, step {tables[run.name][-1]['step']}", fontsize=10)
        axes.axis("off")
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=100)
    os.replace(partial, path)
