"""Group runs that differ only in the seed, and detect scores that must not be compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cs_gan.report.run import Run, shown
from cs_gan.runs import Evaluation

# Runs that differ only in these keys are the same experiment.
FREE = ("seed", "output_dir", "resume")
# Scores stay comparable if only these keys differ (the last part of a key counts). Any other difference gives a
# warning: one too many is better than a wrong comparison.
HARMLESS = {
    "seed",
    "seconds",
    "notes",
    "weights",
    "path",
    "snapshot",
    "step",
    "processes",
    "device",
    "hardware",
    "batch_size",
}


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed."""

    label: str
    runs: list[Run]

    @property
    def scored(self) -> list[Run]:
        """The runs that were evaluated."""
        return [run for run in self.runs if run.evaluations]

    @property
    def evaluations(self) -> list[Evaluation]:
        """The evaluations of all its runs."""
        return [evaluation for run in self.runs for evaluation in run.evaluations]

    @property
    def legend(self) -> str:
        """The label; for several runs, with an explanation of line and spread."""
        count = len(self.scored)
        return self.label if count < 2 else f"{self.label}: mean of n = {count} seeds, from lowest to highest"


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups in the order of their first runs. A run without a configuration forms its own group."""
    groups: list[list[Run]] = []
    for run in {run.path.resolve(): run for run in runs}.values():  # the same folder given twice is one run
        home = next((group for group in groups if run.config and _recipe(run) == _recipe(group[0])), None)
        if home is None:
            groups.append([run])
        else:
            home.append(run)
    labels = [_label(group) for group in groups]
    # Runs with equal names in different folders are labelled by their whole path.
    return [
        Group(label if labels.count(label) == 1 else str(group[0].path), group)
        for label, group in zip(labels, groups, strict=True)
    ]


def mean_and_error(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard error (deviation over n - 1, by the root of n). No error for one value, no mean for none."""
    if len(values) < 2:
        return next(iter(values), None), None
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def config_differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """key -> its value in each group, for keys that differ between groups; also the seeds."""
    rows = _differing([[run.config for run in group.runs] for group in groups])
    return {key: row for key, row in rows.items() if key not in ("output_dir", "resume")}


def score_conflicts(groups: Sequence[Sequence[Evaluation]]) -> dict[str, list[str]]:
    """Differences in how scores were computed: key -> its value in each group.

    Evaluations of one run can differ too, for example after a resume with other counts.
    """
    return _differing([[evaluation.provenance for evaluation in group] for group in groups], _matters)


def repeated_seeds(groups: Sequence[Group]) -> list[str]:
    """Groups in which a seed occurs twice, so that their spread is not over seeds."""
    seeds = {group.label: [run.config.get("seed") for run in group.runs] for group in groups}
    return [label for label, values in seeds.items() if len(set(map(str, values))) < len(values)]


def _differing(
    groups: Sequence[Sequence[dict[str, Any]]], matters: Callable[[str], bool] = lambda key: True
) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for group in groups for table in group for key in table if matters(key)):
        values = [list(dict.fromkeys(_shown(table, key) for table in group)) for group in groups]
        if len({value for row in values for value in row}) > 1:
            rows[key] = [" / ".join(row) for row in values]
    return rows


def _shown(table: dict[str, Any], key: str) -> str:
    return shown(table[key]) if key in table else "not recorded"


def _matters(key: str) -> bool:
    # Runs on more and on fewer images may be compared, because the reference is separate.
    return not key.startswith(("trained_on.", "critic_gap.")) and key.rsplit(".", 1)[-1] not in HARMLESS


def _recipe(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.config.items() if key not in FREE}


def _label(group: Sequence[Run]) -> str:
    """The common part of the names, ``small`` for ``small_seed0`` and ``small_seed1``, or the first name."""
    names = [run.name for run in group]
    if len(names) == 1:
        return names[0]
    common = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in common).rstrip("-_. ").removesuffix("seed").rstrip("-_. ")
    return shared if len(shared) > 2 else names[0]
