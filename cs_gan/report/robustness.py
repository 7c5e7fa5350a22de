"""The robustness report of ``evaluate.py attack``: ``robustness.html``, one self-contained file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cs_gan.errors import DataError
from cs_gan.flat_keys import flatten
from cs_gan.report.chart import Panel, Series
from cs_gan.report.page import write_page
from cs_gan.report.svg import layout
from cs_gan.runs import Row

DEFENDED, UNDEFENDED, PLAIN = "RCI", "without RCI", "plain network"
COLOURS = {"uninformed": 5, "white-box": 0, "omniscient": 7, "black-box": 2, "batch": 1}
HIGHER = "The share of test images that stay right as the attack grows. Higher is better."
_NEEDED = ("claim", "sentence", "sanity_checks", "networks", "defence", "rows", "threats", "notes", "provenance")


@dataclass(frozen=True)
class Banded(Series):
    """A line with a band. ``values`` is (3, s): the line, the lower end and the upper end of the band."""

    @property
    def mean(self) -> npt.NDArray[np.float64]:  # (s,)
        """The line itself."""
        return np.asarray(self.values[0], dtype=float)

    @property
    def band(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:  # (s,), (s,)
        """Its 95 % interval."""
        return self.values[1], self.values[2]


def save_robustness(path: Path, result: Mapping[str, Any]) -> None:
    """Write the page of a robustness evaluation atomically.

    Args:
        path: the HTML file.
        result: the content of ``robustness.json``.

    Raises:
        DataError: if a part is missing.
    """
    if missing := [key for key in _NEEDED if key not in result]:
        raise DataError(f"these results of a robustness evaluation lack {', '.join(missing)}: give a robustness.json.")
    rows: Sequence[Row] = result["rows"]
    threats = [row for row in rows if row["role"] == "threat"]
    radii = list(dict.fromkeys((row["eps_given"], row["eps_pixels"]) for row in rows if row["role"] != "sanity check"))
    provenance = result["provenance"]
    write_page(
        path,
        "robustness.html",
        result=result,
        name=Path(str(provenance.get("snapshot", "a classifier"))).parent.name or "a classifier",
        failed=[check for check in result["sanity_checks"] if not check["passed"]],
        columns=[row["network"] for row in result["networks"]],
        beside=[_beside(rows, eps) for eps, _ in radii],
        beside_chart=layout(_beside_panel(rows)) if len(threats) else None,
        charts=[(layout(panel), knows) for panel, knows in _threat_panels(threats, result["threats"])],
        table=[(row, _three(row)) for row in rows],
        cost=result["defence"],
        facts={key: str(value) for key, value in flatten(provenance).items()},
        percent=_percent,
    )


def _percent(row: Row, name: str = "value") -> str:
    low, high = (name + end for end in ("_low", "_high")) if name != "value" else ("low", "high")
    return f"{100 * row[name]:.1f} % [{100 * row[low]:.1f}, {100 * row[high]:.1f}]"


def _three(row: Row) -> list[str]:
    return [_percent(row, name) for name in ("mean", "worst", "majority")]


# -- networks side by side ---------------------------------------------------------------------------


def strongest(rows: Iterable[Row]) -> Row | None:
    """The row with the lowest accuracy, among rows on all images whose attacker doesn't know the test permutation."""
    candidates = [row for row in rows if row["role"] == "threat" and row["kind"] != "omniscient"]
    largest = max((row["n"] for row in candidates), default=0)
    return min((row for row in candidates if row["n"] == largest), key=lambda row: float(row["mean"]), default=None)


def _at(rows: Sequence[Row], eps: str) -> dict[str, Row]:
    """network -> its row at an eps: under its own attack, or for a defended network under the strongest one."""
    at_eps = [row for row in rows if row["eps_given"] == eps]
    by_network = {row["network"]: row for row in at_eps if row["role"] == "baseline"}
    strongest_row = strongest(at_eps)
    return by_network | ({DEFENDED: strongest_row} if strongest_row else {})


def _beside(rows: Sequence[Row], eps: str) -> dict[str, Any]:
    by_network = _at(rows, eps)
    strongest_row = by_network.get(DEFENDED)
    return {
        "eps": eps,
        "cells": {network: _percent(row, "mean") for network, row in by_network.items()},
        "by": strongest_row["threat"] if strongest_row and strongest_row["eps_pixels"] else "",
    }


def _beside_panel(rows: Sequence[Row]) -> Panel:
    radii = list(dict.fromkeys(row["eps_given"] for row in rows if row["role"] != "sanity check"))
    by_network: dict[str, list[Row]] = {}
    for eps in radii:
        for network, row in _at(rows, eps).items():
            by_network.setdefault(network, []).append(row)
    colours = {PLAIN: 7, UNDEFENDED: 1, DEFENDED: 0}
    series = [
        _line(network_rows, "mean", colours.get(network, 3), network) for network, network_rows in by_network.items()
    ]
    return Panel(
        "Accuracy in %",
        series,
        axis=_axis(rows),
        ends=(0.0, 100.0),
        unit="accuracy in %",
        sentence=HIGHER,
    )


def _threat_panels(rows: Sequence[Row], about: Mapping[str, Row]) -> list[tuple[Panel, str]]:
    """One panel per threat, with what its attacker knows."""
    panels = []
    for threat in dict.fromkeys(row["threat"] for row in rows):
        of_threat = [row for row in rows if row["threat"] == threat]
        draws = max(row["draws"] for row in of_threat)
        parts = {"mean": "mean", "worst": f"worst of {draws}", "majority": "majority"}
        colour = COLOURS.get(of_threat[0]["kind"], 3)
        series = [_line(of_threat, name, colour, part) for name, part in parts.items()]
        knows = about.get(threat, {}).get("knows", "")
        title = f"{threat}, n = {of_threat[0]['n']:,}"
        panel = Panel(title, series, axis=_axis(of_threat), ends=(0.0, 100.0), unit="accuracy in %", sentence=HIGHER)
        panels.append((panel, f"{of_threat[0]['kind']}; knows {knows}" if knows else of_threat[0]["kind"]))
    return panels


def _line(rows: Sequence[Row], name: str, colour: int, part: str) -> Banded:
    ordered = sorted(rows, key=lambda row: float(row["eps_pixels"]))
    levels = 255 if rows[0]["norm"] == "linf" else 1  # 8/255 is easier to read than 0.0314
    values = [[100 * row[key] for row in ordered] for key in (name, f"{name}_low", f"{name}_high")]
    return Banded(np.array([levels * row["eps_pixels"] for row in ordered]), np.array(values), colour, part)


def _axis(rows: Sequence[Row]) -> str:
    return "eps in 1/255" if rows[0]["norm"] == "linf" else "eps (l2)"
