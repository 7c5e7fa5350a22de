"""The layout of a chart on a page: numbers and text, which ``templates/parts.html`` puts into an ``<svg>``.

matplotlib can also write SVG, but needs a second for the charts of a page, and its colours don't follow dark mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cs_gan.report.chart import DASHES, MANY, PALETTE, Floats, Panel, tick_label, ticks

WIDTH, HEIGHT = 320, 196
LEFT, RIGHT, TOP, BOTTOM = 56, 6, 8, 38  # margins around the plot, with the names of the axes

Scale = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Line:
    """One line; coordinates are in pixels of the drawing."""

    colour: int
    dash: int
    points: str
    band: str  # the outline of an area, or empty
    whiskers: list[tuple[float, float, float]]  # x, lower y, upper y
    dots: list[tuple[float, float, str]]  # x, y, text


@dataclass(frozen=True)
class Chart:
    """A panel, laid out."""

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    parts: list[str]
    axis: str
    unit: str
    sentence: str
    width: int = WIDTH
    height: int = HEIGHT
    top: int = TOP
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


def layout(panel: Panel) -> Chart:
    """Compute the positions of a panel's lines and ticks."""
    steps = np.concatenate([series.steps for series in panel.series])
    first, last = min(0.0, float(steps.min())), float(steps.max())
    low, high = _padded(panel)
    x = _scale(np.asarray, first, last, LEFT + 4, WIDTH - RIGHT - 6)
    y = _scale(np.log10 if panel.logarithmic else np.asarray, low, high, HEIGHT - BOTTOM, TOP)
    return Chart(
        panel.title,
        lines=[_line(panel, i, x, y) for i in range(len(panel.series))],
        x_ticks=[(float(x(np.array(at))), tick_label(at)) for at in ticks(first, last, whole=panel.axis == "step")],
        y_ticks=[(float(y(np.array(at))), tick_label(at)) for at in ticks(low, high, panel.logarithmic)],
        parts=panel.parts if len(panel.parts) > 1 else [],
        axis=panel.axis,
        unit=panel.unit,
        sentence=panel.sentence,
    )


def _line(panel: Panel, index: int, x: Scale, y: Scale) -> Line:
    series = panel.series[index]
    xs, ys = x(series.steps), y(series.mean)
    dots = []
    if len(xs) <= MANY:
        texts = [
            f"{panel.axis} {tick_label(step) if step % 1 else f'{step:,.0f}'}: {value:.4g}"
            for step, value in zip(series.steps, series.mean, strict=True)
        ]
        dots = [(float(px), float(py), text) for px, py, text in zip(xs, ys, texts, strict=True)]
    band, whiskers = "", []
    if ranges := panel.whiskers(series):
        places, below, above = ranges
        whiskers = [(float(a), float(b), float(c)) for a, b, c in zip(x(places), y(below), y(above), strict=True)]
    elif series.band:
        below, above = series.band
        band = _points(np.concatenate([xs, xs[::-1]]), np.concatenate([y(below), y(above)[::-1]]))
    dash = panel.parts.index(series.part) % len(DASHES)
    return Line(series.group % len(PALETTE), dash, _points(xs, ys), band, whiskers, dots)


def _padded(panel: Panel) -> tuple[float, float]:
    """The range of the values with an equal margin at both ends."""
    low, high = panel.span
    if panel.logarithmic:
        spare = (high / low) ** 0.05
        return low / spare, high * spare
    spare = 0.05 * (high - low)
    return low - spare, high + spare


def _scale(flatten: Scale, low: float, high: float, start: float, end: float) -> Scale:
    """From values to pixels. If all values are equal, they are in the middle."""
    ends = flatten(np.array([low, high], dtype=float))
    if ends[0] == ends[1]:
        ends = ends + np.array([-1.0, 1.0])
    return lambda values: start + (flatten(values) - ends[0]) / (ends[1] - ends[0]) * (end - start)


def _points(xs: Sequence[float] | Floats, ys: Sequence[float] | Floats) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
