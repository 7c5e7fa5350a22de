"""The table of a sweep, as CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import yaml

from cs_gan.report.page import markdown_row
from cs_gan.sweep.outcome import BEST, RECORD
from cs_gan.sweep.pairs import compared, differences
from cs_gan.sweep.plan import short_names, text
from cs_gan.sweep.results import Best, Results, Row, average, best_of
from cs_gan.sweep.spec import CASE

PAIRED = ("paired difference", "standard error of the paired difference", "sign test p", "pairs")


def csv_table(results: Results) -> str:
    """One row per point: full keys, mean, standard error and n of every score, and the state of the other runs."""
    named = bool(results.rows[0].point.case)
    header = [*([CASE] if named else []), *results.keys, results.score, "standard error", "n"]
    for score in results.scores[1:]:
        header += [score, f"standard error of {score}"]
    header += ["seconds", "failed", "not run"]
    if results.sweep.baseline:
        for score in results.scores:
            header += [f"{name} of {score}" for name in PAIRED]
    header += ["problems"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for row in results.rows:
        line = _lead(results, row)
        for place, score in enumerate(results.scores or [results.score]):
            cell = average([row], score)
            line += [_exact(cell.mean), _exact(cell.error)]
            line += [str(len(row.values(score)))] if place == 0 else []
        line += [_exact(row.seconds), str(row.count("failed")), str(row.count("not run"))]
        if results.sweep.baseline:
            found = differences(results, row) or {}
            for one in (found.get(score) for score in results.scores):
                line += [_exact(one.cell.mean), _exact(one.cell.error), _exact(one.p)] if one else [""] * 3
                line += [str(len(one.by_seed)) if one else ""]
        writer.writerow([*line, " | ".join(row.problems)])
    return file.getvalue()


def markdown(results: Results) -> str:
    """The same as Markdown, with a description, the best of every group, and missing runs."""
    sweep, seeds = results.sweep, len(results.sweep.seeds)
    parts = [f"# {sweep.path.stem}: {results.score}", ""]
    recipe = f" with `{sweep.config}`" if sweep.config else ""
    parts.append(f"`python -m cs_gan.sweep {sweep.path}` runs `{sweep.script}`{recipe}. ")
    parts[-1] += f"{len(results.rows)} points, {seeds} seed{'s' * (seeds > 1)} each: mean ± standard error over "
    parts[-1] += "seeds, of the network after the last step."
    if any(score.startswith(BEST) for score in results.scores):
        parts[-1] += f" `{BEST}...` is the score at the step at which the run's curve was best."
    parts[-1] += " Seconds are for a whole run, with loading and scoring."
    if results.scored_on:
        parts[-1] += f" Scored on {' and on '.join(results.scored_on)}."
    if results.sweep.fixed:
        parts += ["", f"In all runs: {', '.join(f'{key} = {text(value)}' for key, value in sweep.fixed.items())}."]
    parts += ["", *_table(results, results.rows)]
    if sweep.baseline:
        parts += ["", *_differences(results)]
    if sweep.best_of:
        parts += ["", *_best(results)]
    missing = [(row, problem) for row in results.rows for problem in row.problems]
    if missing:
        failed, waiting = results.total("failed"), results.total("not run")
        parts += ["", f"## Missing: {failed} failed, {waiting} not run", ""]
        parts += [f"- {_escaped(row.point.slug)}: {_escaped(problem)}" for row, problem in missing]
        parts += ["", f"Each run's folder holds its output.txt, and in {RECORD} what it was told."]
    return "\n".join(parts) + "\n"


def _table(results: Results, rows: Sequence[Row], extra: Sequence[tuple[str, Sequence[str]]] = ()) -> list[str]:
    """Columns of the settings that vary and of all scores, with ``extra`` ones at the end."""
    header = [*_columns(results), *(results.scores or [results.score]), "n", "seconds", *(name for name, _ in extra)]
    lines = [header, ["---"] * len(header)]
    for number, row in enumerate(rows):
        line = _lead(results, row)
        line += [str(average([row], score)) for score in results.scores or [results.score]]
        seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
        lines.append([*line, _count(row, results.score), seconds, *(values[number] for _, values in extra)])
    return [markdown_row(line) for line in lines]


def _columns(results: Results) -> list[str]:
    """The names of the first columns."""
    short = short_names(results.keys)
    return [*([CASE] if results.rows[0].point.case else []), *(short[key] for key in results.keys)]


def _lead(results: Results, row: Row) -> list[str]:
    """The values of these columns in a row: the settings of its point."""
    varied = row.point.varied
    case = [row.point.case] if row.point.case else []
    return case + [text(varied[key]) if key in varied else "" for key in results.keys]


def _differences(results: Results) -> list[str]:
    """The table of paired differences: for each score the difference and the p-value of its sign."""
    baseline = results.sweep.baseline
    header = [*_columns(results), *(name for score in results.scores for name in (score, "p", "n"))]
    lines = [header, ["---"] * len(header)]
    for row, found in compared(results):
        line = _lead(results, row)
        for one in found.values():
            line += [one.cell.signed, "" if one.p is None else f"{one.p:.2g}", str(len(one.by_seed))]
        lines.append(line)
    seeds = len(results.sweep.seeds)
    told = f"Each run minus the run of {baseline} with the same seed: mean ± standard error over the n seeds that both "
    told += f"have. p is from a two-sided sign test; with {seeds} seed{'s' * (seeds > 1)} it can't be below "
    told += f"{min(1.0, 2.0 ** (1 - seeds)):.2g}."
    return [f"## Paired differences to {baseline}", "", told, "", *map(markdown_row, lines)]


def _best(results: Results) -> list[str]:
    """The table of the best points, with a note about choosing."""
    group, chosen = results.sweep.group, best_of(results)
    lines = [f"## The best of every {group}, chosen by this very score", ""]
    if not results.better:
        return [
            *lines,
            "Not reported: it is unknown whether this score should be high or low. Set `better: higher` "
            "or `better: lower`.",
        ]
    where = f" on {' and on '.join(results.scored_on)}" if results.scored_on else ""
    lines.append(
        f"Each is the {'highest' if results.better == 'higher' else 'lowest'} mean of {results.score}{where} among the "
        "values tried. The best of several looks too good, and more so with more values. Choose on "
        "validation images, and report these settings from a second sweep on test images."
    )
    if not chosen:
        return [*lines, "", "No point has all its seeds yet."]
    counts = [str(best.tried) + (f" ({best.left_out} left out)" if best.left_out else "") for best in chosen]
    lines += ["", *_table(results, [best.row for best in chosen], [("values tried", counts)])]
    if any(best.left_out for best in chosen):
        lines += ["", "Points with a missing run are left out."]
    return [*lines, "", "For the second sweep:", "", "```yaml", *_cases(chosen), "```"]


def _cases(chosen: Sequence[Best]) -> list[str]:
    cases: dict[str, dict[str, Any]] = {}
    for best in chosen:  # a value that is a list must be in a list of values
        settings = {k: [v] if isinstance(v, list) else v for k, v in best.row.point.settings.items()}
        cases[text(best.group)] = settings
    return yaml.safe_dump({"cases": cases}, sort_keys=False, width=1000).splitlines()


def _count(row: Row, score: str) -> str:
    """``3``, or ``1 of 3 (2 failed)``."""
    found, asked = len(row.values(score)), len(row.outcomes)
    if found == asked:
        return str(found)
    told = [f"{row.count(status)} {status}" for status in ("failed", "not run") if row.count(status)]
    return f"{found} of {asked} ({', '.join(told)})"


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
