"""An overview of runs: one PNG with their curves in one panel and the newest grid of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from cs_gan.errors import DataError
from cs_gan.report.chart import draw, literal, name_groups, save_figure
from cs_gan.report.groups import group_runs, score_conflicts
from cs_gan.report.panels import score_panels
from cs_gan.report.run import read_run


def save_overview(path: Path, runs: Sequence[Path]) -> None:
    """One PNG for one run or several: a panel with the primary score of all, then a grid of each.

    Runs that differ only in the seed are drawn as one line: their mean, from lowest to highest, and the
    grid of the first run.

    Args:
        path: a ``.png`` file.
        runs: run folders with a grid and a score; each is labelled by its name.

    Raises:
        DataError: if a folder is not a run, or has no grid or no score yet.
    """
    read = [read_run(run) for run in runs]
    for run in read:
        for part, missing in (("grid.png or grids/", not run.grids), ("scores in metrics.jsonl", not run.evaluations)):
            if missing:
                raise DataError(f"{run.path} has no {part}: give the folder of a run with at least one score.")
    groups = group_runs(read)
    figure = Figure(figsize=(4.4 * (1 + len(groups)), 4.2), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(groups))
    draw(first, score_panels({group.label: [run.evaluations for run in group.runs] for group in groups})[0])
    if len(read) > 1:
        name_groups(figure, [group.legend for group in groups])
    for axes, group in zip(others, groups, strict=True):
        run = group.runs[0]
        with Image.open(run.grids[-1][1], formats=("PNG",)) as picture:
            axes.imshow(np.asarray(picture.convert("RGB")), interpolation="antialiased")
        step = run.steps_done if run.grids[-1][0] is None else run.grids[-1][0]
        axes.set_title(literal(f"{run.name}, step {step}"), fontsize=10)
        axes.axis("off")
    conflicts = score_conflicts([group.evaluations for group in groups])
    if conflicts:
        warning = f"Not comparable: the scores differ in {', '.join(conflicts)}"
        figure.suptitle(literal(warning), color="#b42318", fontsize=10, wrap=True)
    save_figure(figure, path, dpi=100)
