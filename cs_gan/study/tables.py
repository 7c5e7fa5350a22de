"""The table of a study, as CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from cs_gan.report.page import markdown_row
from cs_gan.study.outcome import BEST, RECORD
from cs_gan.study.pairs import compared, differences
from cs_gan.study.plan import short_names, text
from cs_gan.study.results import Best, Entry, Results, average, best_of, by_strength
from cs_gan.study.spec import CASE

PAIRED = ("paired difference", "standard error of the paired difference", "sign test p", "pairs")


def csv_table(results: Results) -> str:
    """One line per point: full keys, mean, standard error and n of every score, and the state of the other runs."""
    named = bool(results.entries[0].point.case)
    header = [*([CASE] if named else []), *results.keys, results.score, "standard error", "n"]
    for score in results.scores[1:]:
        header += [score, f"standard error of {score}"]
    header += ["seconds", "failed", "not run"]
    if results.study.baseline:
        for score in results.scores:
            header += [f"{name} of {score}" for name in PAIRED]
    header += ["problems"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for entry in results.entries:
        line = _lead(results, entry)
        for place, score in enumerate(results.scores or [results.score]):
            cell = average([entry], score)
            line += [_exact(cell.mean), _exact(cell.error)]
            line += [str(len(entry.values(score)))] if place == 0 else []
        line += [_exact(entry.seconds), str(entry.count("failed")), str(entry.count("not run"))]
        if results.study.baseline:
            by_score = differences(results, entry) or {}
            for difference in map(by_score.get, results.scores):
                if difference is None:
                    line += [""] * len(PAIRED)
                else:
                    line += map(_exact, (difference.cell.mean, difference.cell.error, difference.p))
                    line.append(str(len(difference.by_seed)))
        writer.writerow([*line, " | ".join(entry.problems)])
    return file.getvalue()


def markdown(results: Results) -> str:
    """The same as Markdown, with a description, the best of every group, and missing runs."""
    study, seeds = results.study, len(results.study.seeds)
    parts = [f"# {study.path.stem}: {results.score}", ""]
    recipe = f" with `{study.config}`" if study.config else ""
    parts.append(f"`python -m cs_gan.study {study.path}` runs `{study.script}`{recipe}. ")
    parts[-1] += f"{len(results.entries)} points, {seeds} seed{'s' * (seeds > 1)} each: mean ± standard error over "
    parts[-1] += "seeds, of the network after the last step."
    if any(score.startswith(BEST) for score in results.scores):
        parts[-1] += f" `{BEST}...` is the score at the step at which the run's curve was best."
    parts[-1] += " Seconds are for a whole run, with loading and scoring."
    if results.scored_on:
        parts[-1] += f" Scored on {' and on '.join(results.scored_on)}."
    if other := _other_images(results):
        parts += ["", f"**The images were changed between runs**: {other}. A difference may be one of the images."]
    if results.study.fixed:
        parts += ["", f"In all runs: {_settings(study.fixed)}."]
    parts += ["", *_table(results, results.entries)]
    if study.baseline:
        parts += ["", *_differences(results)]
    if by_case := strengths(results):
        parts += ["", "## By strength", "", *by_case]
    if study.best_of:
        parts += ["", *_best(results)]
    if named := [case for case in study.cases if case.name and case.constant]:
        parts += ["", "## Settings of each case", "", *(f"- {case.name}: {_settings(case.constant)}" for case in named)]
    missing = [(entry, problem) for entry in results.entries for problem in entry.problems]
    if missing:
        failed, waiting = results.total("failed"), results.total("not run")
        parts += ["", f"## Missing: {failed} failed, {waiting} not run", ""]
        parts += [f"- {_escaped(entry.point.slug)}: {_escaped(problem)}" for entry, problem in missing]
        parts += ["", f"Each run's folder holds its output.txt, and in {RECORD} what it was told."]
    return "\n".join(parts) + "\n"


def _other_images(results: Results) -> str:
    """The numbers of runs by the test images that they were scored on; empty if nobody changed these.

    Points with other settings of their data may have other images.
    """
    counts: dict[tuple[str, str], Counter[str]] = {}
    for entry in results.entries:
        data = text({key: value for key, value in entry.point.settings.items() if key.startswith("data.")})
        for outcome in entry.outcomes.values():
            if outcome.images:
                counts.setdefault((outcome.scored_on, data), Counter())[outcome.images] += 1
    return "; ".join(
        f"{name} had " + " and ".join(f"the fingerprint {images} in {count} runs" for images, count in each.items())
        for (name, _), each in counts.items()
        if len(each) > 1
    )


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {text(value)}" for key, value in settings.items())


def _table(results: Results, entries: Sequence[Entry], extra: Sequence[tuple[str, Sequence[str]]] = ()) -> list[str]:
    """Columns of the settings that vary and of all scores, with ``extra`` ones at the end."""
    header = [*_columns(results), *(results.scores or [results.score]), "n", "seconds", *(name for name, _ in extra)]
    lines = [header, ["---"] * len(header)]
    for number, entry in enumerate(entries):
        line = _lead(results, entry)
        line += [str(average([entry], score)) for score in results.scores or [results.score]]
        seconds = "" if entry.seconds is None else f"{entry.seconds:.0f}"
        lines.append([*line, _count(entry, results.score), seconds, *(values[number] for _, values in extra)])
    return [markdown_row(line) for line in lines]


def _columns(results: Results) -> list[str]:
    """The names of the first columns."""
    short = short_names(results.keys)
    return [*([CASE] if results.entries[0].point.case else []), *(short[key] for key in results.keys)]


def _lead(results: Results, entry: Entry) -> list[str]:
    """The values of these columns in a line: the settings of the point."""
    varied = entry.point.varied
    case = [entry.point.case] if entry.point.case else []
    return case + [text(varied[key]) if key in varied else "" for key in results.keys]


def _differences(results: Results) -> list[str]:
    """The table of paired differences: for each score the difference and the p-value of its sign."""
    baseline = results.study.baseline
    header = [*_columns(results), *(name for score in results.scores for name in (score, "p", "n"))]
    lines = [header, ["---"] * len(header)]
    for entry, by_score in compared(results):
        line = _lead(results, entry)
        for difference in by_score.values():
            p = "" if difference.p is None else f"{difference.p:.2g}"
            line += [difference.cell.signed, p, str(len(difference.by_seed))]
        lines.append(line)
    seeds = len(results.study.seeds)
    note = f"Each run minus the run of {baseline} with the same seed: mean ± standard error over the n seeds that both "
    note += f"have. p is from a two-sided sign test; with {seeds} seed{'s' * (seeds > 1)} it can't be below "
    note += f"{min(1.0, 2.0 ** (1 - seeds)):.2g}."
    return [f"## Paired differences to {baseline}", "", note, "", *map(markdown_row, lines)]


def strengths(results: Results) -> list[str]:
    """The differences of the main score to the baseline, with a line per case and a column per strength.

    Empty without a baseline, or unless :func:`by_strength` finds such cases.
    """
    strength, curves = by_strength(results)
    if not curves or not results.study.baseline:
        return []
    curves = {case: entries for case, entries in curves.items() if case != results.study.baseline}
    values = sorted({value for entries in curves.values() for value in entries})
    names = [f"{100 * value:g} %" if strength == "share" else f"{strength} {value:g}" for value in values]
    lines = [[CASE, *names], ["---"] * (1 + len(names))]
    for case, entries in curves.items():
        line = [case]
        for value in values:
            difference = value in entries and (differences(results, entries[value]) or {}).get(results.score)
            line.append(f"{difference.cell.signed} ({len(difference.by_seed)})" if difference else "")
        lines.append(line)
    baseline = [entry for entry in results.entries if entry.point.case == results.study.baseline]
    mean = f" ({average(baseline, results.score)}, {len(baseline[0].values(results.score))} seeds)"
    note = f"{results.score} minus that of {results.study.baseline}{mean if len(baseline) == 1 else ''}, seed by seed; "
    note += "the number of pairs is in brackets:"
    return [note, "", *map(markdown_row, lines)]


def _best(results: Results) -> list[str]:
    """The table of the best points, with a note about choosing."""
    group, chosen = results.study.group_by, best_of(results)
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
        "validation images, and report these settings from a second study on test images."
    )
    if not chosen:
        return [*lines, "", "No point has all its seeds yet."]
    counts = [str(best.tried) + (f" ({best.left_out} left out)" if best.left_out else "") for best in chosen]
    lines += ["", *_table(results, [best.entry for best in chosen], [("values tried", counts)])]
    if any(best.left_out for best in chosen):
        lines += ["", "Points with a missing run are left out."]
    return [*lines, "", "For the second study:", "", "```yaml", *_cases(chosen), "```"]


def _cases(chosen: Sequence[Best]) -> list[str]:
    cases: dict[str, dict[str, Any]] = {}
    for best in chosen:  # a value that is a list must be in a list of values
        settings = {k: [v] if isinstance(v, list) else v for k, v in best.entry.point.settings.items()}
        cases[text(best.group)] = settings
    return yaml.safe_dump({"cases": cases}, sort_keys=False, width=1000).splitlines()


def _count(entry: Entry, score: str) -> str:
    """``3``, or ``1 of 3 (2 failed)``."""
    done, planned = len(entry.values(score)), len(entry.outcomes)
    if done == planned:
        return str(done)
    missing = [f"{entry.count(status)} {status}" for status in ("failed", "not run") if entry.count(status)]
    if entry.count("done") > done:
        missing.append(f"{entry.count('done') - done} not finite")
    return f"{done} of {planned} ({', '.join(missing)})"


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
