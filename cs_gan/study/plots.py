"""Heat maps and lines over the settings that vary."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, ScalarFormatter

from cs_gan.report.chart import INK, PALETTE, literal, plain_axes, save_figure
from cs_gan.study.plan import UNSAFE, short_names, text
from cs_gan.study.results import Entry, Results, average, by_strength

DPI = 110
WIDE = 20.0  # ratio of the largest value to the smallest above which an axis is logarithmic


def save_plots(folder: Path, results: Results) -> list[Path]:
    """Write all plots, and delete those of an earlier version of the study.

    If two or more keys vary, every pair gives a heat map. One key gives a line with standard errors. Cases have
    separate plots, and cases.png compares them. If cases vary one number of the same name, such as a share of the
    gradient, strength.png shows them on one axis. A plot averages over all other keys, as its title says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[Path, Figure] = {}
    cases = list(dict.fromkeys(entry.point.case for entry in results.entries))
    for case in cases:
        entries = [entry for entry in results.entries if entry.point.case == case]
        if not any(entry.values(results.score) for entry in entries):
            continue
        prefix = f"{UNSAFE.sub('_', case.lower())}-{cases.index(case)}-" if case else ""
        for keys in _keys_of_plots(results, entries):
            draw = heatmap if len(keys) == 2 else line
            figure = draw(results, entries, *keys)
            short = short_names(results.keys)
            name = UNSAFE.sub("_", "-".join(short[key] for key in keys).lower())
            drawn[folder / f"{prefix}{'heatmap' if len(keys) == 2 else 'line'}-{name}.png"] = figure
    if len(cases) > 1 and any(entry.values(results.score) for entry in results.entries):
        drawn[folder / "cases.png"] = side_by_side(results)
        if strength := against_strength(results):
            drawn[folder / "strength.png"] = strength
    for path, figure in drawn.items():
        save_figure(figure, path, DPI)
    for old in set(folder.glob("*.png")) - set(drawn):
        old.unlink()
    return list(drawn)


def _keys_of_plots(results: Results, entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """Pairs of keys for heat maps and single keys for lines: the file's choice, or every pair that varies."""
    varied = [key for key in entries[0].point.varied if len(_values(entries, key)) > 1]
    plots = results.study.plots
    pairs: list[tuple[str, ...]] = list(
        plots.heatmaps if plots.heatmaps is not None else itertools.combinations(varied, 2)
    )
    lines = plots.lines if plots.lines is not None else varied[:1] if len(varied) == 1 else []
    return [
        keys for keys in [*pairs, *((key,) for key in lines)] if all(key in entries[0].point.varied for key in keys)
    ]


def heatmap(results: Results, entries: Sequence[Entry], down: str, across: str) -> Figure:
    """The mean score at every pair of values. A star marks missing runs, a dash no runs."""
    places = _values(entries, down), _values(entries, across)
    short = short_names(results.keys)
    cells = [[average(_at(entries, {down: y, across: x}), results.score) for x in places[1]] for y in places[0]]
    grid = np.array([[np.nan if cell.mean is None else cell.mean for cell in line] for line in cells])
    middle = 0.4 * np.nanmin(grid) + 0.6 * np.nanmax(grid)  # viridis is bright above this
    figure = Figure(figsize=(2.6 + 1.1 * len(places[1]), 1.9 + 0.6 * len(places[0])), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(grid), cmap="viridis", aspect="auto")
    bar = figure.colorbar(image, ax=axes, format=ScalarFormatter(useOffset=False))
    bar.set_label(literal(results.score), color=INK, fontsize=9)
    bar.ax.tick_params(labelcolor=INK, labelsize=8)
    for (y, x), value in np.ndenumerate(grid):
        cell = cells[y][x]
        color = INK if np.isnan(value) else "white" if value < middle else "black"
        label = str(cell).replace(" ±", "\n±") + ("" if cell.complete else "*")
        axes.text(x, y, label, ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(len(places[1])), [literal(text(value)) for value in places[1]])
    axes.set_yticks(range(len(places[0])), [literal(text(value)) for value in places[0]])
    axes.set_xlabel(literal(short[across]), color=INK)
    axes.set_ylabel(literal(short[down]), color=INK)
    _title(figure, results, entries, (down, across), all(cell.complete for line in cells for cell in line))
    axes.tick_params(length=0, labelcolor=INK, labelsize=9)
    axes.spines[:].set_visible(False)
    return figure


def line(results: Results, entries: Sequence[Entry], key: str) -> Figure:
    """The mean score with its standard error against one key: a line for numbers, points for other values."""
    values = _values(entries, key)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    values = sorted(values) if numeric else values
    cells = [average(_at(entries, {key: value}), results.score) for value in values]
    places = values if numeric else list(range(len(values)))
    figure = Figure(figsize=(4.8, 3.4), layout="constrained")
    axes = figure.subplots()
    _markers(axes, places, cells, "o-" if numeric else "o")
    if not numeric:
        axes.set_xticks(places, [literal(text(value)) for value in values])
    elif values[0] > 0 and values[-1] > WIDE * values[0]:
        axes.set_xscale("log")
    axes.set_xlabel(literal(short_names(results.keys)[key]), color=INK)
    axes.set_ylabel(literal(results.score), color=INK)
    _title(figure, results, entries, (key,), all(cell.complete for cell in cells))
    plain_axes(axes)
    return figure


def side_by_side(results: Results) -> Figure:
    """All points of all cases, one column per case."""
    names = list(dict.fromkeys(entry.point.case for entry in results.entries))
    figure = Figure(figsize=(2.0 + 0.9 * len(names), 3.6), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(names):
        entries = [entry for entry in results.entries if entry.point.case == name]
        spread = np.linspace(-0.25, 0.25, len(entries)) if len(entries) > 1 else [0.0]
        _markers(axes, [place + shift for shift in spread], [average([entry], results.score) for entry in entries], "o")
    axes.set_xticks(range(len(names)), [literal(name) for name in names], rotation=30, ha="right")
    axes.set_ylabel(literal(results.score), color=INK)
    done = sorted({len(entry.values(results.score)) for entry in results.entries})
    seeds = " to ".join(map(str, dict.fromkeys((done[0], done[-1]))))
    axes.set_title(f"every point: mean and standard error, {seeds} seeds", fontsize=9, loc="left")
    plain_axes(axes)
    return figure


def against_strength(results: Results) -> Figure | None:
    """The score of each case against the one number that it varies, with the baseline as a band.

    None unless :func:`by_strength` finds such cases.
    """
    strength, curves = by_strength(results)
    if not curves:
        return None
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for number, (case, entries) in enumerate(curves.items()):
        # Moved apart by some percent, so that bars of the same value can be told apart.
        places = [1.02 ** (number - len(curves) / 2) * value for value in entries]
        cells = [average([entry], results.score) for entry in entries.values()]
        _markers(axes, places, cells, "o-", PALETTE[number % len(PALETTE)], case)
    baseline = [entry for entry in results.entries if entry.point.case == results.study.baseline]
    if len(baseline) == 1 and (cell := average(baseline, results.score)).mean is not None:
        axes.axhspan(cell.mean - (cell.error or 0), cell.mean + (cell.error or 0), color=INK, alpha=0.15, linewidth=0)
        axes.axhline(cell.mean, color=INK, linewidth=1, linestyle="--", label=literal(results.study.baseline))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted({value for entries in curves.values() for value in entries})))
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.xaxis.set_minor_formatter(NullFormatter())
    shown = [value for entry in results.entries for value in entry.values(results.score).values()]
    if shown and min(shown) > 0 and max(shown) > WIDE / 4 * min(shown):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(literal(strength), color=INK)
    better = f" ({results.better} is better)" if results.better else ""
    axes.set_ylabel(literal(f"{results.score}{better}"), color=INK)
    axes.set_title("mean and standard error over seeds", fontsize=9, loc="left")
    axes.legend(fontsize=8, frameon=False)
    plain_axes(axes)
    return figure


def _markers(
    axes: Axes, places: Sequence[float], cells: Sequence[Any], style: str, color: str = PALETTE[0], label: str = ""
) -> None:
    filled = [(place, cell) for place, cell in zip(places, cells, strict=True) if cell.mean is not None]
    axes.errorbar(
        [place for place, _ in filled],
        [cell.mean for _, cell in filled],
        yerr=[cell.error or 0.0 for _, cell in filled],
        fmt=style,
        color=color,
        label=literal(label) or None,
        capsize=3,
        markersize=4,
        linewidth=1.4,
    )


def _values(entries: Sequence[Entry], key: str) -> list[Any]:
    """The values of a key in the order of the file."""
    values = [entry.point.varied[key] for entry in entries if key in entry.point.varied]
    return list({text(value): value for value in values}.values())


def _at(entries: Sequence[Entry], where: dict[str, Any]) -> list[Entry]:
    return [
        entry for entry in entries if all(text(entry.point.varied[key]) == text(value) for key, value in where.items())
    ]


def _title(figure: Figure, results: Results, entries: Sequence[Entry], shown: Sequence[str], complete: bool) -> None:
    """A text that says what the means are over."""
    short, seeds = short_names(results.keys), len(results.study.seeds)
    rest = [(short[key], len(_values(entries, key))) for key in entries[0].point.varied if key not in shown]
    over = [f"{count} values of {name}" for name, count in rest if count > 1] + [f"{seeds} seed{'s' * (seeds > 1)}"]
    lines = [f"{entries[0].point.case}: {results.score}" if entries[0].point.case else results.score]
    lines.append("mean over " + ", ".join(over) + (", ± standard error over seeds" if seeds > 1 else ""))
    if not complete:
        lines.append("* over fewer runs: some failed or are missing")
    letters = int(figure.get_figwidth() * 15)
    lines = [part for line in lines for part in textwrap.wrap(line, letters)]
    figure.suptitle(literal("\n".join(lines)), fontsize=8.5, x=0.02, ha="left")
