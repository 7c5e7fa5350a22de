"""Make the pages of docs/results/ from the raw rows beside them, and the tables of docs/results.md: ``make results``.

``python docs/make_results.py samples/studies/<name>`` first copies a finished study's rows there. A study's file is
``configs/studies/<name>.yaml``.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import NullLocator  # noqa: E402

from cs_gan.report.chart import INK, PALETTE, plain_axes, save_figure  # noqa: E402
from cs_gan.report.page import markdown_row  # noqa: E402
from cs_gan.study.pairs import Difference, differences  # noqa: E402
from cs_gan.study.plan import plan, text  # noqa: E402
from cs_gan.study.plots import against_strength  # noqa: E402
from cs_gan.study.results import Results, average  # noqa: E402
from cs_gan.study.rows import read_rows  # noqa: E402
from cs_gan.study.spec import read_study  # noqa: E402
from cs_gan.study.tables import markdown, strengths  # noqa: E402

RESULTS = ROOT / "docs" / "results"
EQUAL_TIME = {  # the cases of classifier_1k_new by the passes over the data that they cost; a coded epoch counts as two
    "ERM": {60: "ERM", 125: "ERM, equal time", 250: "ERM, 250 epochs"},
    "label smoothing": {60: "label smoothing", 125: "label smoothing, equal time"},
    "CutMix": {60: "CutMix", 125: "CutMix, equal time"},
    "mixup": {60: "mixup", 125: "mixup, equal time", 250: "mixup, 250 epochs"},
    "coded, N = K": {120: "coded, N = K", 250: "coded, N = K, 125 epochs"},
}
EQUAL_TIME_COLOURS = [PALETTE[0], PALETTE[4], PALETTE[3], PALETTE[2], PALETTE[1]]
EQUAL_TIME_SCORES = {
    "accuracy (%)": "accuracy (%)",
    "calibration error (%)": "calibration error (%)",
    "accuracy, PGD-20 0.00784 on 500 (%)": "accuracy under PGD-20 at 2/255 (%)",
}


def read(rows: Path) -> Results:
    """The results of one study; paths in its file are relative to the repository."""
    study = read_study(Path("configs") / "studies" / f"{rows.stem}.yaml")
    return read_rows(study, plan(study, Path("samples") / "studies" / rows.stem), rows.read_text())


def page(rows: Path, results: Results) -> str:
    """The page of one study. One that varies a strength gets a picture of the scores against it."""
    content = markdown(results)
    if figure := against_strength(results):
        save_figure(figure, rows.with_suffix(".png"), dpi=100)
        content += f"\n![{results.score} against strength]({rows.stem}.png)\n"
    return f"{content}\nRaw rows, one per run: `docs/results/{rows.name}`.\n"


def summary(results: Results) -> list[str]:
    """A line per point that was run: each score, and the main score's difference to the baseline, seed by seed."""
    baseline, better = results.study.baseline, results.better
    header = ["", *results.scores, f"minus {baseline}", f"{better} on"]
    lines = [header, ["---"] * len(header)]
    for entry in results.entries:
        count = len(entry.values(results.score))
        if not count:
            continue
        varied = "".join(f", {text(value)}" for value in entry.point.varied.values())
        line = [f"{entry.point.case}{varied} ({count})", *(str(average([entry], score)) for score in results.scores)]
        if (by_score := differences(results, entry)) and (pairs := by_score[results.score].by_seed):
            wins = sum(value > 0 if better == "higher" else value < 0 for value in pairs.values())
            line += [by_score[results.score].cell.signed, f"{wins} of {len(pairs)} seeds"]
        lines.append(line + [""] * (len(header) - len(line)))
    return [f"In brackets the number of seeds; the difference is of {results.score}:", "", *map(markdown_row, lines)]


def equal_time(results: Results) -> Figure:
    """README's picture: what coding gains over training for as long without it, with standard errors over seeds."""
    by_case = {entry.point.case: entry for entry in results.entries}
    figure = Figure(figsize=(9.5, 3.5), layout="constrained")
    for axes, (score, title) in zip(figure.subplots(1, 3), EQUAL_TIME_SCORES.items(), strict=True):
        for (name, cases), colour in zip(EQUAL_TIME.items(), EQUAL_TIME_COLOURS, strict=True):
            cells = {passes: average([by_case[case]], score) for passes, case in cases.items()}
            means = {passes: (cell.mean, cell.error or 0.0) for passes, cell in cells.items() if cell.mean is not None}
            heights, errors = zip(*means.values(), strict=True)
            axes.errorbar(list(means), heights, errors, fmt="o-", capsize=3, color=colour, label=name)
        axes.set_xscale("log")
        axes.set_xticks([60, 120, 250], ["60", "120", "250"])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(bottom=0 if score != results.score else None)
        axes.set_title(title, fontsize=10, loc="left")
        plain_axes(axes)
    figure.axes[1].set_xlabel("passes over the 1,000 images, a coded epoch counted as two", color=INK)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def pooled(studies: Sequence[Results], case: str) -> list[str]:
    """A case minus each other case that all studies have, seed by seed within each study, over all of them."""
    entries = [{entry.point.case: entry for entry in results.entries} for results in studies]
    scores = studies[0].scores
    header = [f"{case} minus", *scores]
    lines = [header, ["---"] * len(header)]
    for other in entries[0]:
        if other == case or not all(other in by_case for by_case in entries):
            continue
        line = [other]
        for score in scores:
            by_seed: dict[int, float] = {}
            for by_case in entries:
                values, base = by_case[case].values(score), by_case[other].values(score)
                if values.keys() & by_seed.keys():
                    raise ValueError(f"{other}: two studies have a seed in common, so their runs can't be pooled")
                by_seed |= {seed: values[seed] - base[seed] for seed in values if seed in base}
            difference = Difference(by_seed)
            higher = sum(value > 0 for value in by_seed.values())
            line.append(f"{difference.cell.signed} ({higher} of {len(by_seed)}, p {difference.p:.2g})")
        lines.append(line)
    note = "Mean ± standard error of the differences, seed by seed; on how many seeds it is higher, and the p of a "
    note += "two-sided sign test:"
    return [note, "", *map(markdown_row, lines)]


def filled(page: str, of_study: dict[str, Results]) -> str:
    """The page with its tables made anew, each between ``<!-- KIND NAME -->`` and ``<!-- end -->``.

    A kind is strengths or summary of a study, or pooled of two (``pooled first+second: case``).
    """

    def table(match: re.Match[str]) -> str:
        start, kind, names, case = match.groups()
        studies = [of_study[name] for name in names.split("+")]
        if kind == "pooled":
            lines = pooled(studies, case)
        else:
            lines = {"strengths": strengths, "summary": summary}[kind](*studies)
        return "\n".join([start, *lines, "<!-- end -->"])

    marker = r"(<!-- (strengths|summary|pooled) ([\w+]+)(?:: ([^\n]+))? -->)\n.*?<!-- end -->"
    new_page, tables = re.subn(marker, table, page, flags=re.DOTALL)
    if tables != (ends := page.count("<!-- end -->")):
        raise ValueError(f"{ends} tables end with <!-- end -->, but only {tables} begin with a marker")
    return new_page


def main(arguments: list[str]) -> None:
    """Copy what is given, then make every page."""
    for folder in map(Path, arguments):
        shutil.copy(folder / "rows.csv", RESULTS / f"{folder.name}.csv")
    of_study = {rows.stem: read(rows) for rows in sorted(RESULTS.glob("*.csv"))}
    for name, results in of_study.items():
        rows = RESULTS / f"{name}.csv"
        rows.with_suffix(".md").write_text(page(rows, results))
        print(rows.with_suffix(".md"))
    save_figure(equal_time(of_study["classifier_1k_new"]), RESULTS.parent / "pictures" / "equal_time.png", dpi=100)
    prose = RESULTS.with_suffix(".md")
    prose.write_text(filled(prose.read_text(), of_study))


if __name__ == "__main__":
    main(sys.argv[1:])
