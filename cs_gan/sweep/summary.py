"""Table, plots and page of a sweep, from its run folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cs_gan.files import write_text
from cs_gan.report import save_study
from cs_gan.sweep.pairs import Difference, differences
from cs_gan.sweep.plan import Run
from cs_gan.sweep.plots import save_plots
from cs_gan.sweep.results import Results, Row, average, best_of, read_results
from cs_gan.sweep.rows import write_rows
from cs_gan.sweep.spec import Sweep
from cs_gan.sweep.tables import csv_table, markdown


def summarise(sweep: Sweep, runs: Sequence[Run], folder: Path) -> Results:
    """Write table.csv, rows.csv, table.md, results.json, study.html and plots/ from the results so far."""
    folder.mkdir(parents=True, exist_ok=True)
    results = read_results(sweep, runs)
    write_text(folder / "table.csv", csv_table(results))
    write_text(folder / "rows.csv", write_rows(results))
    write_text(folder / "results.json", json.dumps(as_plain(results), indent=2))
    drawn = save_plots(folder / "plots", results)
    pictures = "".join(f"\n![{path.stem}](plots/{path.name})\n" for path in drawn)
    write_text(folder / "table.md", markdown(results) + pictures)
    save_study(folder / "study.html", folder)
    return results


def as_plain(results: Results) -> dict[str, Any]:
    """The content of results.json, for the page and other programs."""
    chosen = [
        {"group": best.group, "settings": best.row.point.settings, "tried": best.tried, "left_out": best.left_out}
        for best in (best_of(results) if results.sweep.best_of else [])
    ]
    return {
        "sweep": str(results.sweep.path),
        "score": results.score,
        "scores": results.scores,
        "better": results.better,
        "scored_on": results.scored_on,
        "baseline": results.sweep.baseline,
        "points": [_point(results, row) for row in results.rows],
        "best": chosen,
    }


def _point(results: Results, row: Row) -> dict[str, Any]:
    cell, point = average([row], results.score), row.point
    runs = [
        {"seed": seed, "folder": f"runs/{point.slug}-seed{seed}", "status": one.status, "reason": one.reason}
        | {"step": one.step, "steps": one.steps, "seconds": one.seconds, "scores": one.scores}
        for seed, one in row.outcomes.items()
    ]
    found: dict[str, Any] = {"mean": cell.mean, "standard_error": cell.error, "n": len(row.values(results.score))}
    compared = differences(results, row)
    if compared is not None:
        found["differences"] = {score: _difference(one) for score, one in compared.items()}
    return {"case": point.case, "name": point.slug, "settings": point.settings, **found, "runs": runs}


def _difference(one: Difference) -> dict[str, Any]:
    found = {"mean": one.cell.mean, "standard_error": one.cell.error, "n": len(one.by_seed), "sign_test_p": one.p}
    return found | {"by_seed": {str(seed): value for seed, value in one.by_seed.items()}}
