"""The raw rows of a sweep, one per run: enough to rebuild its tables without the run folders."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from cs_gan.errors import ConfigError
from cs_gan.sweep.outcome import BEST, Outcome, adopt
from cs_gan.sweep.plan import Run
from cs_gan.sweep.results import Results, collected
from cs_gan.sweep.spec import Sweep

ABOUT = ("run", "case", "seed", "status", "reason", "seconds", "primary", "better", "scored_on")


def write_rows(results: Results) -> str:
    """CSV: :data:`ABOUT`, the scores of the last step and, with prefix ``best ``, the best primary score."""
    told = [(row, seed, one) for row in results.rows for seed, one in row.outcomes.items()]
    names = list(dict.fromkeys(name for _, _, one in told for name in one.scores if _kept(name, one)))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*ABOUT, *names])
    for row, seed, one in told:
        about = (one.status, one.reason, "" if one.seconds is None else f"{one.seconds:.10g}", one.primary)
        scores = [f"{one.scores[name]:.6g}" if name in one.scores else "" for name in names]
        run = f"{row.point.slug}-seed{seed}"
        writer.writerow([run, row.point.case, seed, *about, one.better, one.scored_on, *scores])
    return file.getvalue()


def _kept(name: str, one: Outcome) -> bool:
    """Only the primary score of the best step. All scores would double the file."""
    return not name.startswith(BEST) or name == f"{BEST}{one.primary}"


def read_rows(sweep: Sweep, runs: Sequence[Run], text: str) -> Results:
    """Read the rows of :func:`write_rows`.

    Raises:
        ConfigError: if the rows don't belong to this sweep's runs.
    """
    rows: dict[str, dict[str, Any]] = {row["run"]: row for row in csv.DictReader(io.StringIO(text))}
    asked = [run.name for run in runs]
    if set(rows) != set(asked):
        odd = sorted(set(rows) ^ set(asked))
        raise ConfigError(f"{sweep.path} and its rows differ in {len(odd)} runs, such as {odd[0]}.")
    return collected(sweep, runs, [_outcome(rows[name]) for name in asked])


def adopt_rows(runs: Sequence[Run], text: str) -> int:
    """Count the finished runs of such rows as done, where this sweep has not begun them. Returns how many there are."""
    rows: dict[str, dict[str, Any]] = {row["run"]: row for row in csv.DictReader(io.StringIO(text))}
    found = [run for run in runs if rows.get(run.name, {}).get("status") == "done" and not run.folder.exists()]
    for run in found:
        adopt(run, _outcome(rows[run.name]))
    return len(found)


def _outcome(row: dict[str, Any]) -> Outcome:
    scores = {name: float(value) for name, value in row.items() if name not in ABOUT and value}
    seconds = float(row["seconds"]) if row["seconds"] else None
    return Outcome(row["status"], row["reason"], scores, row["primary"], row["better"], row["scored_on"], seconds)
