"""A sweep on one page: scores, differences to the baseline, curves and pictures of each point."""

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
from cs_gan.runs import Evaluation

BEST = "best "  # prefix of a score's name: at the best step
MOST = len(PALETTE)  # number of points with a colour, curves and pictures; the last colour is for all others


@dataclass(frozen=True)
class Point:
    """Runs that differ only in the seed."""

    label: str
    colour: int
    told: Mapping[str, Any]  # as results.json has it
    runs: dict[int, Run]  # seed -> its folder, for started runs

    def scores(self, name: str) -> dict[int, float]:
        """Seed -> score, for finished runs."""
        return {run["seed"]: run["scores"][name] for run in self.told["runs"] if name in run["scores"]}

    def differences(self, name: str) -> Mapping[str, Any]:
        """Differences to the baseline; empty if there are none."""
        found: Mapping[str, Any] = self.told.get("differences", {}).get(name, {})
        return found


def save_study(path: Path, folder: Path) -> None:
    """Write the results of a sweep so far as one HTML file, atomically.

    Args:
        path: the page.
        folder: the sweep's, with ``results.json`` and ``runs/``.

    Raises:
        DataError: if there is no ``results.json`` that can be read.
    """
    told = _read(folder / "results.json")
    points = _coloured(_points(folder, told), told)
    scores, baseline = told["scores"], told["baseline"]
    shown = [point for point in points if len(points) <= MOST or point.colour < MOST - 1]
    curves = {point.label: _curves(point, scores) for point in shown}
    states = [run["status"] for point in points for run in point.told["runs"]]
    final = [[run.full["final"] for run in point.runs.values() if "final" in run.full] for point in points]
    scored = [(point.label, found) for point, found in zip(points, final, strict=True) if found]
    write_page(
        path,
        "study.html",
        name=Path(told["sweep"]).stem,
        told=told,
        states={state: states.count(state) for state in ("done", "failed", "not run")},
        total=len(states),
        seeds=len({run["seed"] for point in points for run in point.told["runs"]}),
        points=points,
        colours=MOST,
        bars=_strips(_bars(points, score) for score in scores),
        differences=_strips(_differences(points, score) for score in scores) if baseline else [],
        shown=shown,
        charts=[layout(panel) for panel in score_panels(curves)],
        pictures=_pictures(shown),
        conflicts=score_conflicts([found for _, found in scored]),
        labels=[label for label, _ in scored],
        problems=[(point.label, run) for point in points for run in point.told["runs"] if run["status"] != "done"],
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}. Give the folder of a sweep.") from error


def _points(folder: Path, told: Mapping[str, Any]) -> list[Point]:
    """Labels: the case if that is unique, otherwise all settings that vary."""
    cases = [point["case"] for point in told["points"]]
    points = []
    for number, point in enumerate(told["points"]):
        label = point["case"] if point["case"] and cases.count(point["case"]) == 1 else point["name"]
        runs = {run["seed"]: found for run in point["runs"] if (found := _run(folder / run["folder"]))}
        points.append(Point(label, number, point, runs))
    return points


def _run(folder: Path) -> Run | None:
    try:
        return read_run(folder)
    except DataError:  # not started
        return None


def _coloured(points: Sequence[Point], told: Mapping[str, Any]) -> list[Point]:
    """A colour for each point; if there are too many, for the baseline's points and the best ones."""
    if len(points) <= MOST:
        return list(points)
    sign = -1 if told["better"] == "higher" else 1

    def rank(point: Point) -> tuple[bool, float]:
        return point.told["case"] != told["baseline"] or not told["baseline"], sign * point.told["mean"]

    best = sorted((point for point in points if point.told["mean"] is not None), key=rank)[: MOST - 1]
    colours = iter(range(MOST - 1))
    return [replace(point, colour=next(colours) if point in best else MOST - 1) for point in points]


def _curves(point: Point, scores: Sequence[str]) -> list[list[Evaluation]]:
    """The curves of each run, only for the scores of the study."""
    wanted = {score.removeprefix(BEST) for score in scores}
    return [
        [
            replace(one, scores=kept)
            for one in run.evaluations
            if (kept := {name: value for name, value in one.scores.items() if name in wanted})
        ]
        for run in point.runs.values()
    ]


def _strips(found: Any) -> list[Strips]:
    return [strips for strips in found if strips is not None]


def _bars(points: Sequence[Point], score: str) -> Strips | None:
    return lay_out(score, [(point.label, point.colour, point.scores(score)) for point in points])


def _differences(points: Sequence[Point], score: str) -> Strips | None:
    found = [(point, point.differences(score)) for point in points if point.differences(score)]
    rows = [
        (point.label, point.colour, {int(seed): value for seed, value in one["by_seed"].items()})
        for point, one in found
    ]
    notes = ["–" if one["sign_test_p"] is None else f"{one['sign_test_p']:.2g}" for _, one in found]
    return lay_out(score, rows, notes, signed=True)


def _pictures(points: Sequence[Point]) -> list[tuple[int, list[tuple[int, Frame]]]]:
    """Seed -> the newest grid of each point, for as many seeds as fit on a page."""
    found: list[tuple[int, list[tuple[int, Frame]]]] = []
    for seed in sorted({seed for point in points for seed in point.runs}):
        frames = [
            (point.colour, picture)
            for point in points
            if seed in point.runs and (picture := newest(point.label, point.runs[seed])) is not None
        ]
        if frames and sum(len(row) for _, row in found) + len(frames) <= MOST_GRIDS:
            found.append((seed, frames))
    return found
