"""Values of several seeds as strips on one scale: a bar of mean ± standard error, and a dot for each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cs_gan.report.chart import tick_label, ticks
from cs_gan.report.groups import mean_and_error
from cs_gan.report.page import with_spread

WIDTH, MARGIN = 400.0, 8.0


@dataclass(frozen=True)
class Strip:
    """One row; coordinates are in pixels of the drawing."""

    label: str
    group: int  # index of the colour
    count: int
    text: str  # mean ± standard error
    middle: float | None
    bar: tuple[float, float] | None  # its start and width
    dots: list[tuple[float, str]]  # position and text
    note: str = ""


@dataclass(frozen=True)
class Strips:
    """Rows under one axis."""

    title: str
    rows: list[Strip]
    ticks: list[tuple[float, str]]
    zero: float | None  # position of its mark
    width: float = WIDTH


def lay_out(
    title: str,
    rows: Sequence[tuple[str, int, Mapping[int, float]]],
    notes: Sequence[str] = (),
    signed: bool = False,
) -> Strips | None:
    """Place values on an axis that fits them; None if there are none.

    Args:
        title: the title of the strips.
        rows: for each its label, its colour, and seed -> value.
        notes: a note for each row.
        signed: the values are differences: the axis includes zero, and positive values get a plus.
    """
    numbers = [value for _, _, values in rows for value in values.values()]
    if not numbers:
        return None
    spreads = [mean_and_error(list(values.values())) for _, _, values in rows]
    edges = [middle + sign * (error or 0.0) for middle, error in spreads if middle is not None for sign in (-1, 1)]
    low, high = min(*numbers, *edges, *([0.0] if signed else [])), max(*numbers, *edges, *([0.0] if signed else []))
    if low == high:
        low, high = low - 1, high + 1

    def place(value: float) -> float:
        return MARGIN + (value - low) / (high - low) * (WIDTH - 2 * MARGIN)

    strips = []
    for number, ((label, group, values), (middle, error)) in enumerate(zip(rows, spreads, strict=True)):
        bar = None
        if middle is not None and error is not None:
            bar = place(middle - error), place(middle + error) - place(middle - error)
        text = with_spread(middle, error)
        strips.append(
            Strip(
                label,
                group,
                len(values),
                f"+{text}" if signed and middle is not None and middle > 0 else text,
                None if middle is None else place(middle),
                bar,
                [(place(value), f"seed {seed}: {value:.5g}") for seed, value in values.items()],
                notes[number] if notes else "",
            )
        )
    marks = [(place(at), tick_label(at)) for at in ticks(low, high)]
    return Strips(title, strips, marks, place(0.0) if signed else None)
