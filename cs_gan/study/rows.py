"""The raw rows of a study, one per run: enough to rebuild its tables without the run folders."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from cs_gan.errors import ConfigError
from cs_gan.study.outcome import BEST, Outcome
from cs_gan.study.plan import Run
from cs_gan.study.results import Results, collected
from cs_gan.study.spec import Study

ABOUT = ("run", "case", "seed", "status", "reason", "seconds", "primary", "better", "scored_on", "settings")


def write_rows(results: Results) -> str:
    """CSV: :data:`ABOUT`, the scores of the last step and, with prefix ``best ``, the primary and requested ones."""
    runs = [(entry.point, seed, outcome) for entry in results.entries for seed, outcome in entry.outcomes.items()]
    requested = results.study.scores
    names = dict.fromkeys(name for *_, outcome in runs for name in outcome.scores if _in_rows(name, outcome, requested))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*ABOUT, *names])
    for point, seed, outcome in runs:
        seconds = "" if outcome.seconds is None else f"{outcome.seconds:.10g}"
        state = (outcome.status, outcome.reason, seconds, outcome.primary, outcome.better, outcome.scored_on)
        scores = [f"{outcome.scores[name]:.6g}" if name in outcome.scores else "" for name in names]
        writer.writerow([f"{point.slug}-seed{seed}", point.case, seed, *state, outcome.settings, *scores])
    return file.getvalue()


def _in_rows(name: str, outcome: Outcome, requested: Sequence[str]) -> bool:
    """Of the best step only what is asked for: all scores would double the file."""
    return not name.startswith(BEST) or name == f"{BEST}{outcome.primary}" or name in requested


def read_rows(study: Study, runs: Sequence[Run], text: str) -> Results:
    """Read the rows of :func:`write_rows`. A run without a row has not run.

    Raises:
        ConfigError: for a row of no run of this study, or of other settings.
    """
    rows = _by_run(text)
    if unknown := sorted(rows.keys() - {run.name for run in runs}):
        raise ConfigError(f"{study.path} has no {len(unknown)} of the runs in its rows, such as {unknown[0]}.")
    outcomes = {name: _outcome(row) for name, row in rows.items()}
    for run in runs:
        if run.name in outcomes and outcomes[run.name].settings not in ("", run.settings):
            raise ConfigError(f"the row of {run.name} was made with other settings than {study.path} has now.")
    return collected(study, runs, [outcomes.get(run.name, Outcome("not run")) for run in runs])


def adoptable(study: Study, runs: Sequence[Run], text: str) -> list[tuple[Run, Outcome]]:
    """The runs that are finished in such rows, with the settings and scores of this study, and that it has not begun.

    Rows of before settings were noted count as of the same.
    """
    outcomes = {name: _outcome(row) for name, row in _by_run(text).items() if row["status"] == "done"}
    return [
        (run, outcomes[run.name])
        for run in runs
        if run.name in outcomes
        and outcomes[run.name].settings in ("", run.settings)
        and outcomes[run.name].scores.keys() >= set(study.scores)
        and not run.folder.exists()
    ]


def _by_run(text: str) -> dict[str, dict[str, Any]]:
    rows = csv.DictReader(io.StringIO(text))
    if lacking := [name for name in ABOUT if name != "settings" and name not in (rows.fieldnames or ())]:
        raise ConfigError(f"the rows have no column {lacking[0]!r}: give a study's rows.csv.")
    return {row["run"]: row for row in rows}


def _outcome(row: dict[str, Any]) -> Outcome:
    scores = {name: float(value) for name, value in row.items() if name not in ABOUT and value}
    seconds = float(row["seconds"]) if row["seconds"] else None
    return Outcome(
        row["status"],
        row["reason"],
        scores,
        row["primary"],
        row["better"],
        row["scored_on"],
        seconds,
        row.get("settings") or "",
    )
