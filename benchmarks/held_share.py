"""How well a held share is held: ``python -m benchmarks.held_share STUDY_FOLDER ... --output docs/results/NAME.csv``.

Reads the logs of all runs of studies that hold shares (``coded.<part>.share``), and writes for each case, target and
step the median over runs of the measured share divided by its target, and a picture beside it. A line of the log is the
mean of the measurements since the line before.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from cs_gan.report.chart import INK, PALETTE, literal, plain_axes, save_figure
from cs_gan.runs import RunFolder, read_lines

Ratios = dict[tuple[str, float], dict[int, list[float]]]
"""(case, target) -> step -> measured / target, one for each run."""


def ratios_of(studies: Sequence[Path]) -> Ratios:
    """Measured shares over their targets, from the names of the runs and their logs."""
    ratios: Ratios = defaultdict(lambda: defaultdict(list))
    for run in sorted(path for study in studies for path in (study / "runs").iterdir()):
        named = re.search(r"^(?P<case>.*?),.*share=(?P<target>[\d.]+)~", run.name)
        for line in read_lines(RunFolder(run).log) if named else ():
            for key, share in line.items():
                if named and key.endswith("_share"):
                    target = float(named["target"])
                    ratios[named["case"], target][line["step"]].append(share / target)
    return ratios


def draw(ratios: Ratios) -> Figure:
    """One line for each case and target: the median ratio against the step."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    cases = sorted({case for case, _ in ratios})
    for (case, _), by_step in sorted(ratios.items()):
        steps = sorted(by_step)
        values = [median(by_step[step]) for step in steps]
        colour = PALETTE[cases.index(case) % len(PALETTE)]
        axes.plot(steps, values, color=colour, linewidth=1.1, alpha=0.8)
    for number, case in enumerate(cases):
        label = literal(case.replace("__", ", ").replace("_", " "))
        axes.plot([], [], color=PALETTE[number % len(PALETTE)], label=label)
    axes.axhline(1, color=INK, linewidth=1, linestyle="--")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("measured share / held share", color=INK)
    axes.set_title("median over runs; a line for each target of each case", fontsize=9, loc="left")
    axes.legend(fontsize=8, frameon=False, ncols=2)
    plain_axes(axes)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table and the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.held_share", description=__doc__)
    parser.add_argument("studies", nargs="+", type=Path, help="folders of studies that hold shares")
    parser.add_argument("--output", type=Path, required=True, help="a .csv file; the picture gets the same name")
    options = parser.parse_args(arguments)
    ratios = ratios_of(options.studies)
    with options.output.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["case", "share", "step", "runs", "median of measured / share"])
        for (case, target), by_step in sorted(ratios.items()):
            for step, values in sorted(by_step.items()):
                table.writerow([case, target, step, len(values), f"{median(values):.3g}"])
    save_figure(draw(ratios), options.output.with_suffix(".png"), dpi=100)
    near = [value for by_step in ratios.values() for values in by_step.values() for value in values]
    within = sum(0.8 <= value <= 1.25 for value in near) / max(len(near), 1)
    print(f"{len(near)} lines of logs: {100 * within:.0f} % within 0.8 to 1.25 of the share; {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
