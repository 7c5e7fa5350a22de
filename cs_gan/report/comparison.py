"""Several runs side by side on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from cs_gan.report.chart import PALETTE
from cs_gan.report.groups import (
    Group,
    config_differences,
    group_runs,
    mean_and_error,
    repeated_seeds,
    score_conflicts,
)
from cs_gan.report.page import newest, with_spread, write_page
from cs_gan.report.panels import at_common_steps, score_panels
from cs_gan.report.run import read_run, score_names
from cs_gan.report.svg import layout
from cs_gan.runs import Evaluation, best


@dataclass(frozen=True)
class ComparisonRow:
    """A group's scores at one step: means, with standard errors if there are several runs."""

    label: str
    group: int
    when: str
    count: int
    cells: list[str]


def save_comparison(path: Path, runs: Sequence[Path]) -> None:
    """Write the scores, newest samples and differing settings of runs as one HTML file, atomically.

    Runs that differ only in the seed become one line: their mean, from lowest to highest. A warning lists
    differences in how scores were computed that make them incomparable.

    Raises:
        DataError: if a folder is not a run.
    """
    groups = group_runs([read_run(run) for run in runs])
    evaluations = [evaluation for group in groups for evaluation in group.evaluations]
    scored = [i for i, group in enumerate(groups) if group.scored]
    complete = all("best" in run.full for i in scored for run in groups[i].scored)
    final_scores, best_scores = ([choose(groups[i], complete) for i in scored] for choose in (last_scores, _best))
    tables = {group.label: [run.evaluations for run in group.runs] for group in groups}
    names = score_names([*evaluations, *chain(*final_scores)])
    primaries = {(evaluation.primary, evaluation.better) for evaluation in evaluations}
    primary, better = primaries.pop() if len(primaries) == 1 else ("", "")
    write_page(
        path,
        "comparison.html",
        groups=groups,
        scored=scored,
        colours=len(PALETTE),
        single=any(len(group.runs) == 1 for group in groups),
        repeated=repeated_seeds(groups),
        charts=[layout(panel) for panel in score_panels(tables)],
        primary=primary,
        better=better,
        columns=names,
        complete=complete,
        last=[_row(groups[i], i, chosen, names) for i, chosen in zip(scored, final_scores, strict=True)],
        best=[_row(groups[i], i, chosen, names) for i, chosen in zip(scored, best_scores, strict=True)],
        pictures=[(i, newest(run.name, run)) for i, group in enumerate(groups) for run in group.runs if run.grids],
        differences=config_differences(groups),
        # Full scores may use other counts than curves, so each kind is only compared with its own.
        conflicts=score_conflicts([groups[i].evaluations for i in scored])
        | score_conflicts(final_scores)
        | score_conflicts(best_scores),
    )


def last_scores(group: Group, complete: bool) -> list[Evaluation]:
    """Scores at the last step that all runs of the group reached, so that a slow seed doesn't distort the mean."""
    if complete:
        return [run.full["final"] for run in group.scored]
    tables = [run.evaluations for run in group.scored]
    steps, _ = at_common_steps(tables, tables[0][-1].primary)
    return [evaluation for table in tables for evaluation in table if steps and evaluation.step == steps[-1]]


def _best(group: Group, complete: bool) -> list[Evaluation]:
    """Scores of each run at its own best primary score."""
    evaluations = (run.full["best"] if complete else best(run.evaluations) for run in group.scored)
    return [evaluation for evaluation in evaluations if evaluation is not None]


def _row(group: Group, index: int, evaluations: Sequence[Evaluation], names: Sequence[str]) -> ComparisonRow:
    steps = sorted({evaluation.step for evaluation in evaluations})
    when = f"steps {steps[0]:,} to {steps[-1]:,}" if len(steps) > 1 else f"step {steps[0]:,}" if steps else "no step"
    return ComparisonRow(group.label, index, when, len(evaluations), _cells(evaluations, names))


def _cells(evaluations: Sequence[Evaluation], names: Sequence[str]) -> list[str]:
    cells = []
    for name in names:
        values = [evaluation.scores[name] for evaluation in evaluations if name in evaluation.scores]
        cells.append(with_spread(*mean_and_error(values)))
    return cells
