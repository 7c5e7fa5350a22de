"""An overview of runs: one PNG with their curves in one panel, the newest grid of each, and training images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from cs_gan.errors import DataError
from cs_gan.report.chart import draw, literal, name_groups, save_figure
from cs_gan.report.groups import group_runs, score_conflicts
from cs_gan.report.panels import score_panels
from cs_gan.report.run import Run, read_run
from cs_gan.runs import RunFolder


def save_overview(path: Path, runs: Sequence[Path]) -> None:
    """One PNG for one run or several: a panel with the primary score of all, a grid of each, and training images.

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
    pictures = [_newest(group.runs[0]) for group in groups] + _training_images([group.runs[0] for group in groups])
    figure = Figure(figsize=(4.4 + 2.9 * len(pictures), 4.2), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(pictures), width_ratios=[4.4, *[2.9] * len(pictures)])
    draw(first, score_panels({group.label: [run.evaluations for run in group.runs] for group in groups})[0])
    if len(read) > 1:
        name_groups(figure, [group.legend for group in groups])
    for axes, (title, file) in zip(others, pictures, strict=True):
        with Image.open(file, formats=("PNG",)) as picture:
            axes.imshow(np.asarray(picture.convert("RGB")), interpolation="antialiased")
        axes.set_title(literal(fill(title, 36)), fontsize=10)
        axes.axis("off")
    conflicts = score_conflicts([group.evaluations for group in groups])
    if conflicts:
        warning = f"Not comparable: the scores differ in {', '.join(conflicts)}"
        figure.suptitle(literal(warning), color="#b42318", fontsize=10, wrap=True)
    save_figure(figure, path, dpi=100)


def _newest(run: Run) -> tuple[str, Path]:
    step, file = run.grids[-1]
    return f"{run.name}, step {run.steps_done if step is None else step}", file


def _training_images(runs: Sequence[Run]) -> list[tuple[str, Path]]:
    """A grid for each set of images that runs were trained on."""
    grids = {
        file.read_bytes(): (run.name, file) for run in reversed(runs) if (file := RunFolder(run.path).real).exists()
    }
    if len(grids) == 1:
        return [("training images", file) for _, file in grids.values()]
    return [(f"training images of {name}", file) for name, file in reversed(grids.values())]
