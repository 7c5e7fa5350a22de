"""All results of a sweep for results.json, for its page and other programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cs_gan.sweep.pairs import Difference, differences
from cs_gan.sweep.results import Results, Row, average, best_of


def as_plain(results: Results) -> Mapping[str, Any]:
    """The content of results.json."""
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
