"""Table, plots and page of a study, from its run folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cs_gan.files import write_text
from cs_gan.report import save_study
from cs_gan.study.outcome import read_outcome
from cs_gan.study.pairs import Difference, differences
from cs_gan.study.plan import Run
from cs_gan.study.plots import save_plots
from cs_gan.study.results import Entry, Results, average, best_of, collected, read_results
from cs_gan.study.rows import write_rows
from cs_gan.study.spec import Study
from cs_gan.study.tables import csv_table, markdown


def summarise(study: Study, runs: Sequence[Run], folder: Path) -> Results:
    """Write table.csv, rows.csv, table.md, results.json, study.html and plots/ from the results so far."""
    folder.mkdir(parents=True, exist_ok=True)
    results = read_results(study, runs)
    write_text(folder / "table.csv", csv_table(results))
    # Also runs that lack a requested score: its name may be wrong.
    write_text(folder / "rows.csv", write_rows(collected(study, runs, list(map(read_outcome, runs)))))
    write_text(folder / "results.json", json.dumps(as_plain(results), indent=2))
    drawn = save_plots(folder / "plots", results)
    pictures = "".join(f"\n![{path.stem}](plots/{path.name})\n" for path in drawn)
    write_text(folder / "table.md", markdown(results) + pictures)
    save_study(folder / "study.html", folder)
    return results


def as_plain(results: Results) -> dict[str, Any]:
    """The content of results.json, for the page and other programs."""
    chosen = [
        {"group": best.group, "settings": best.entry.point.settings, "tried": best.tried, "left_out": best.left_out}
        for best in (best_of(results) if results.study.best_of else [])
    ]
    return {
        "study": str(results.study.path),
        "score": results.score,
        "scores": results.scores,
        "better": results.better,
        "scored_on": results.scored_on,
        "baseline": results.study.baseline,
        "points": [_point(results, entry) for entry in results.entries],
        "best": chosen,
    }


def _point(results: Results, entry: Entry) -> dict[str, Any]:
    cell, point = average([entry], results.score), entry.point
    runs = [
        {"seed": seed, "folder": f"runs/{point.slug}-seed{seed}", "status": run.status, "reason": run.reason}
        | {"step": run.step, "steps": run.steps, "seconds": run.seconds, "scores": run.scores}
        for seed, run in entry.outcomes.items()
    ]
    content: dict[str, Any] = {"case": point.case, "name": point.slug, "settings": point.settings}
    content |= {"mean": cell.mean, "standard_error": cell.error, "n": len(entry.values(results.score))}
    compared = differences(results, entry)
    if compared is not None:
        content["differences"] = {score: _difference(difference) for score, difference in compared.items()}
    return content | {"runs": runs}


def _difference(difference: Difference) -> dict[str, Any]:
    cell, by_seed = difference.cell, {str(seed): value for seed, value in difference.by_seed.items()}
    content = {"mean": cell.mean, "standard_error": cell.error, "n": len(by_seed), "sign_test_p": difference.p}
    return content | {"by_seed": by_seed}
