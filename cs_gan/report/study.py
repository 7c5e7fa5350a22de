"""A study on one page: scores, differences to the baseline, curves and pictures of each point."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cs_gan.errors import DataError
from cs_gan.report.chart import PALETTE
from cs_gan.report.groups import score_conflicts
from cs_gan.report.page import MOST_GRIDS, Frame, newest, write_page
from cs_gan.report.panels import score_panels
from cs_gan.report.run import Run, read_run
from cs_gan.report.strips import Strips, lay_out
from cs_gan.report.svg import layout
from cs_gan.runs import Evaluation, is_number

BEST = "best "  # prefix of a score's name: at the best step
MOST = len(PALETTE)  # number of points with a colour, curves and pictures; the last colour is for all others


@dataclass(frozen=True)
class StudyPoint:
    """Runs that differ only in the seed."""

    label: str
    colour: int
    results: Mapping[str, Any]  # as results.json has it
    runs: dict[int, Run]  # seed -> its folder, for started runs

    def scores(self, name: str) -> dict[int, float]:
        """Seed -> score, for finished runs; one that is not finite is left out."""
        runs = [run for run in self.results["runs"] if name in run["scores"] and is_number(run["scores"][name])]
        return {run["seed"]: run["scores"][name] for run in runs}

    def differences(self, name: str) -> Mapping[str, Any]:
        """Differences to the baseline; empty if there are none."""
        differences: Mapping[str, Any] = self.results.get("differences", {}).get(name, {})
        return differences


def save_study(path: Path, folder: Path) -> None:
    """Write the results of a study so far as one HTML file, atomically.

    Args:
        path: the page.
        folder: the study's, with ``results.json`` and ``runs/``.

    Raises:
        DataError: if there is no ``results.json`` that can be read.
    """
    results = _read(folder / "results.json")
    points = _coloured(_points(folder, results), results)
    scores, baseline = results["scores"], results["baseline"]
    shown = [point for point in points if len(points) <= MOST or point.colour < MOST - 1]
    curves = {point.label: _curves(point, scores) for point in shown}
    states = [run["status"] for point in points for run in point.results["runs"]]
    final = [[run.full["final"] for run in point.runs.values() if "final" in run.full] for point in points]
    scored = [(point.label, evaluations) for point, evaluations in zip(points, final, strict=True) if evaluations]
    write_page(
        path,
        "study.html",
        name=Path(results["study"]).stem,
        results=results,
        states={state: states.count(state) for state in ("done", "failed", "not run")},
        total=len(states),
        seeds=len({run["seed"] for point in points for run in point.results["runs"]}),
        points=points,
        colours=MOST,
        bars=_strips(_bars(points, score) for score in scores),
        differences=_strips(_differences(points, score) for score in scores) if baseline else [],
        shown=shown,
        charts=[layout(panel) for panel in score_panels(curves)],
        pictures=_pictures(shown),
        conflicts=score_conflicts([evaluations for _, evaluations in scored]),
        labels=[label for label, _ in scored],
        problems=[(point.label, run) for point in points for run in point.results["runs"] if run["status"] != "done"],
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} can't be read: {error}. Give the folder of a study.") from error


def _points(folder: Path, results: Mapping[str, Any]) -> list[StudyPoint]:
    """The points. A point is labelled by its case if that is unique, otherwise by all settings that vary."""
    cases = [point["case"] for point in results["points"]]
    points = []
    for number, point in enumerate(results["points"]):
        label = point["case"] if point["case"] and cases.count(point["case"]) == 1 else point["name"]
        begun = [run for run in point["runs"] if run["status"] != "not run" or run["step"] is not None]
        runs = {run["seed"]: opened for run in begun if (opened := _run(folder / run["folder"]))}
        points.append(StudyPoint(label, number, point, runs))
    return points


def _run(folder: Path) -> Run | None:
    try:
        return read_run(folder)
    except DataError:  # not started
        return None


def _coloured(points: Sequence[StudyPoint], results: Mapping[str, Any]) -> list[StudyPoint]:
    """A colour for each point; if there are too many, for the baseline's points and the best ones."""
    if len(points) <= MOST:
        return list(points)
    sign = -1 if results["better"] == "higher" else 1

    def rank(point: StudyPoint) -> tuple[bool, float]:
        return point.results["case"] != results["baseline"] or not results["baseline"], sign * point.results["mean"]

    best = sorted((point for point in points if point.results["mean"] is not None), key=rank)[: MOST - 1]
    colours = iter(range(MOST - 1))
    return [replace(point, colour=next(colours) if point in best else MOST - 1) for point in points]


def _curves(point: StudyPoint, scores: Sequence[str]) -> list[list[Evaluation]]:
    """The curves of each run, only for the scores of the study."""
    names = {score.removeprefix(BEST) for score in scores}
    return [
        [
            replace(evaluation, scores=chosen)
            for evaluation in run.evaluations
            if (chosen := {name: value for name, value in evaluation.scores.items() if name in names})
        ]
        for run in point.runs.values()
    ]


def _strips(rows: Any) -> list[Strips]:
    return [strips for strips in rows if strips is not None]


def _bars(points: Sequence[StudyPoint], score: str) -> Strips | None:
    return lay_out(score, [(point.label, point.colour, point.scores(score)) for point in points])


def _differences(points: Sequence[StudyPoint], score: str) -> Strips | None:
    pairs = [(point, point.differences(score)) for point in points if point.differences(score)]
    rows = [
        (point.label, point.colour, {int(seed): value for seed, value in difference["by_seed"].items()})
        for point, difference in pairs
    ]
    notes = [
        "–" if difference["sign_test_p"] is None else f"{difference['sign_test_p']:.2g}" for _, difference in pairs
    ]
    return lay_out(score, rows, notes, signed=True)


def _pictures(points: Sequence[StudyPoint]) -> list[tuple[int, list[tuple[int, Frame]]]]:
    """Seed -> the newest grid of each point, for as many seeds as fit on a page."""
    pictures: list[tuple[int, list[tuple[int, Frame]]]] = []
    for seed in sorted({seed for point in points for seed in point.runs}):
        frames = [
            (point.colour, picture)
            for point in points
            if seed in point.runs and (picture := newest(point.label, point.runs[seed])) is not None
        ]
        if frames and sum(len(row) for _, row in pictures) + len(frames) <= MOST_GRIDS:
            pictures.append((seed, frames))
    return pictures
