"""The content of a chart, and how it is drawn as a picture. ``svg.py`` draws the same chart for a page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from cs_gan.files import replacing

# Also distinguishable for colour-blind readers (Okabe and Ito). style.css has the same, and lighter ones for dark mode.
PALETTE = ("#0072b2", "#d55e00", "#00855f", "#b5579a", "#a67c00", "#3a9bd9", "#7a5195", "#6b6f76")
DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
INK, RULE = "#667085", "#e4e2dd"
MANY = 60  # with more points than this, markers would overlap
MOST_WHISKERS = 12  # of one line
WHISKERS_APART = 0.012  # of the horizontal axis
LOG_FROM = 5  # ratio of the highest value to the lowest; below it, a logarithmic axis would have too few labels
LETTERS = 60  # of a line of text below a chart, at 9 points in a figure of 4.8 inches

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One line of a panel: the mean over runs, with a band from lowest to highest if there are several."""

    steps: npt.NDArray[np.float64]  # (s,)
    values: npt.NDArray[np.float64]  # (runs, s)
    group: int = 0  # index of the colour
    part: str = ""  # in a panel with several scores: which one, shown by dashes

    @property
    def mean(self) -> npt.NDArray[np.float64]:  # (s,)
        """The line."""
        return np.asarray(self.values.mean(0), dtype=float)

    @property
    def band(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:  # (s,), (s,)
        """The lowest and the highest value over the runs."""
        return (self.values.min(0), self.values.max(0)) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title: its heading.
        series: its lines.
        log: whether a logarithmic axis is allowed if useful.
        axis: the name of the horizontal axis. If that is ``step``, its ticks are whole numbers.
        ends: fixed ends of the vertical axis.
        unit: the name of the vertical axis.
        sentence: what the chart shows and which direction is better.
    """

    title: str
    series: Sequence[Series]
    log: bool = False
    axis: str = "step"
    ends: tuple[float, float] | None = None
    unit: str = ""
    sentence: str = ""

    @property
    def parts(self) -> list[str]:
        """The scores in the panel, one per kind of dash."""
        return list(dict.fromkeys(series.part for series in self.series))

    def whiskers(self, series: Series) -> tuple[Floats, Floats, Floats] | None:  # (w,), (w,), (w,)
        """Position, lower and upper end of a band that is drawn as whiskers; None for a filled area.

        Several areas would be a blur. Whiskers stand side by side, and at most a few of each line.
        """
        banded = [each for each in self.series if each.band]
        if series.band is None or len(banded) < 2:
            return None
        chosen = np.unique(np.linspace(0, len(series.steps) - 1, MOST_WHISKERS).round().astype(int))
        steps = np.concatenate([each.steps for each in self.series])
        low, high = min(0.0, float(steps.min())), float(steps.max())
        place = next(i for i, each in enumerate(banded) if each is series) - (len(banded) - 1) / 2
        step = min(WHISKERS_APART, 0.5 / MOST_WHISKERS / len(banded)) * (high - low)
        return series.steps[chosen] + place * step, series.band[0][chosen], series.band[1][chosen]

    @property
    def span(self) -> tuple[float, float]:
        """The lowest and the highest value, or the fixed ends."""
        if self.ends:
            return self.ends
        values = np.concatenate([series.values.ravel() for series in self.series])
        return float(values.min()), float(values.max())

    @property
    def logarithmic(self) -> bool:
        """Whether the axis is logarithmic."""
        low, high = self.span
        return self.log and low > 0 and high >= LOG_FROM * low


def ticks(low: float, high: float, logarithmic: bool = False, whole: bool = False) -> list[float]:
    """About three to seven round numbers between two values; ``whole`` ones if they count something."""
    if not logarithmic:
        candidates = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=whole, min_n_ticks=1).tick_values(low, high)
    else:
        for subs in ((1.0, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
            candidates = LogLocator(subs=subs, numticks=9).tick_values(low, high)
            if sum(low <= tick <= high for tick in candidates) <= 7:
                break
    return [float(tick) for tick in candidates if low <= tick <= high]


def tick_label(value: float) -> str:
    """``500``, ``12.5k``, ``0.05``."""
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:.6g}"


def literal(name: str) -> str:
    """Escape a name for a figure, where a dollar sign would start a formula."""
    return name.replace("$", r"\$")


def draw(axes: Axes, panel: Panel) -> None:
    """Draw a panel, with a legend if it has several parts."""
    dashes = {part: DASHES[i % len(DASHES)] for i, part in enumerate(panel.parts)}
    for series in panel.series:
        marker = "o" if len(series.steps) <= MANY else ""
        shade = PALETTE[series.group % len(PALETTE)]
        axes.plot(series.steps, series.mean, dashes[series.part], color=shade, marker=marker, markersize=3, lw=1.6)
        if whiskers := panel.whiskers(series):
            axes.vlines(*whiskers, color=shade, lw=1.1, alpha=0.75)
        elif series.band:
            axes.fill_between(series.steps, *series.band, color=shade, alpha=0.18, linewidth=0)
    if len(dashes) > 1:
        keys = [Line2D([], [], color=INK, linestyle=dash) for dash in dashes.values()]
        axes.legend(keys, [literal(part) for part in dashes], frameon=False, labelcolor=INK, fontsize=9)
    _dress(axes, panel)


def name_groups(figure: Figure, groups: Sequence[str]) -> None:
    """A legend of the groups' colours, below all panels."""
    keys = [Line2D([], [], color=PALETTE[i % len(PALETTE)]) for i in range(len(groups))]
    names = [literal(group) for group in groups]
    figure.legend(keys, names, loc="outside lower left", ncols=2, frameon=False, labelcolor=INK, fontsize=9)


def _dress(axes: Axes, panel: Panel) -> None:
    if panel.logarithmic:
        axes.set_yscale("log")
        axes.set_yticks(ticks(*panel.span, logarithmic=True))
        axes.yaxis.set_minor_locator(NullLocator())
    if panel.axis == "step":
        first, last = axes.get_xlim()
        axes.set_xticks(ticks(max(first, 0.0), last, whole=True))
        axes.set_xlim(first, last)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: tick_label(value)))
    axes.set_title(literal(panel.title), fontsize=10, loc="left")
    axes.set_xlabel(panel.axis, fontsize=9, color=INK)
    axes.set_ylabel(literal(panel.unit), fontsize=9, color=INK)
    if panel.sentence:
        lines = textwrap.fill(panel.sentence, LETTERS)
        axes.annotate(
            literal(lines),
            (0, 0),
            (0, -36),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=8,
            color=INK,
            va="top",
        )
    plain_axes(axes)


def plain_axes(axes: Axes) -> None:
    """Leave a light grid and small grey labels."""
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(which="both", length=0, labelsize=9, labelcolor=INK)


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a PNG atomically."""
    FigureCanvasAgg(figure)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=dpi)
