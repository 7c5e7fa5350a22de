"""Panels of scores, by group of seeds, and panels of losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
import numpy.typing as npt

from cs_gan.report.chart import Panel, Series
from cs_gan.report.meanings import of_column, of_scores
from cs_gan.report.run import score_names
from cs_gan.runs import Evaluation, is_number

POINTS = 300  # points of a loss curve; more than a chart can show are averaged
MOST_LOG_PANELS = 12
PAIRED = ("precision", "recall", "density", "coverage")  # fractions that are shown together

Tables = Mapping[str, Sequence[Sequence[Evaluation]]]


def score_panels(tables: Tables) -> list[Panel]:
    """One panel per score, with precision and recall in one. The primary score is first.

    Args:
        tables: group -> the evaluations of each of its runs. A group's line is the mean over its runs with the score,
            at the steps at which all of them were evaluated.
    """
    evaluations = [evaluation for group in tables.values() for table in group for evaluation in table]
    families: dict[str, list[str]] = {}
    for name in score_names(evaluations):
        kind, _, features = name.partition(", ")
        families.setdefault(f"fractions, {features}" if kind in PAIRED else name, []).append(name)
    panels = []
    for names in families.values():
        kinds = [name.partition(", ")[0] for name in names]
        listed = " and ".join(filter(None, [", ".join(kinds[:-1]), kinds[-1]]))
        title = names[0] if len(names) == 1 else f"{listed}, {names[0].partition(', ')[2]}"
        series = [
            line
            for name, kind in zip(names, kinds, strict=True)
            for group, runs in enumerate(tables.values())
            if (line := _series(runs, name, group, kind if len(names) > 1 else ""))
        ]
        directions = {evaluation.better for evaluation in evaluations if evaluation.primary == names[0]}
        axis, sentence = of_scores(names, directions.pop() if len(directions) == 1 else "")
        # A distance falls by orders of magnitude.
        log = names[0].startswith("F")
        panels.append(Panel(title.removesuffix(", "), series, log=log, unit=axis, sentence=sentence))
    return [panel for panel in panels if panel.series]


def log_panels(log: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """One panel per column of the log, in the log's order."""
    columns = dict.fromkeys(key for line in log for key in line if key != "step")
    panels = []
    for column in columns:
        points = np.array([(line["step"], line[column]) for line in log if is_number(line.get(column))], dtype=float)
        if len(points):
            steps, values = _thinned(points).T
            axis, sentence = of_column(column)
            title = column.replace("_", " ")
            panels.append(Panel(title, [Series(steps, values[None])], unit=axis, sentence=sentence))
    return panels[:MOST_LOG_PANELS]


def points_averaged(log: Sized) -> int:
    """The number of log lines per point of a loss curve."""
    return -(-len(log) // POINTS)


def at_common_steps(runs: Sequence[Sequence[Evaluation]], name: str) -> tuple[list[int], npt.NDArray[np.float64]]:
    """The steps (s,) at which all runs with a score have it, and its values (runs, s)."""
    curves = [
        {evaluation.step: evaluation.scores[name] for evaluation in run if name in evaluation.scores} for run in runs
    ]
    curves = [curve for curve in curves if curve]
    steps = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return steps, np.array([[curve[step] for step in steps] for curve in curves], dtype=float)


def _series(runs: Sequence[Sequence[Evaluation]], name: str, group: int, part: str) -> Series | None:
    steps, values = at_common_steps(runs, name)
    return Series(np.array(steps, dtype=float), values, group, part) if steps else None


def _thinned(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:  # (n, 2) -> (at most POINTS, 2)
    size = points_averaged(points)
    return np.array([points[start : start + size].mean(0) for start in range(0, len(points), size)])
