"""Runs as a Markdown table: the settings of each, its scores, and the command that made it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cs_gan.files import write_text
from cs_gan.report.comparison import last_scores
from cs_gan.report.groups import Group, group_runs, mean_and_error, repeated_seeds, score_conflicts
from cs_gan.report.page import markdown_row, with_spread
from cs_gan.report.run import Run, command_of, read_run, score_names
from cs_gan.runs import Evaluation

COLUMNS = ("run", "network", "parameters", "data", "coded", "steps", "scores", "n", "scored on", "hardware", "made by")
UNKNOWN = "not recorded"
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm; networks in models/ have no others
INCEPTIONS = ("FID", "IS", "KID")
HEAD = """# Runs

Each row is one run, or n runs that differ only in the seed. Scores are those after the last step: mean ± standard error
over the n runs. A score's name contains the features that it is measured on. Only Inception's features give an FID.
Compare scores only where "scored on" is the same. The parameters are those in the snapshot: a GAN's generator, or an
encoder with its projector.
"""


def save_zoo(path: Path, runs: Sequence[Path]) -> None:
    """Write run folders as one Markdown table, atomically.

    Raises:
        DataError: if a folder is no run.
    """
    groups = group_runs([read_run(run) for run in runs])
    lines = [HEAD, markdown_row(COLUMNS), markdown_row("---" for _ in COLUMNS)]
    warnings = [
        f"- {label}: a seed occurs twice, so ± is not an error over different seeds."
        for label in repeated_seeds(groups)
    ]
    for group in groups:
        evaluations = _chosen(group)
        lines.append(markdown_row(_cells(group, evaluations)))
        warnings += [
            f"- {_label(group)}: {key} is not the same for all its scores: {', '.join(values)}."
            for key, values in score_conflicts([[evaluation] for evaluation in evaluations]).items()
        ]
    words = ["python -m cs_gan.report", *_patterns(runs), f"--output {shlex.quote(str(path))}"]
    lines += ["", *warnings, *([""] if warnings else []), "Written by", "", "```bash", " \\\n  ".join(words), "```", ""]
    write_text(path, "\n".join(lines))


def _patterns(runs: Sequence[Path]) -> list[str]:
    """The paths, quoted for a shell. If all folders in a folder are given, ``folder/*`` stands for them."""
    patterns: dict[str, None] = {}
    for run in runs:
        siblings = {path for path in run.parent.iterdir() if path.is_dir()}
        all_of_folder = len(siblings) > 1 and siblings <= set(runs)
        patterns[f"{shlex.quote(str(run.parent))}/*" if all_of_folder else shlex.quote(str(run))] = None
    return list(patterns)


def _chosen(group: Group) -> list[Evaluation]:
    """The last scores of each run: the full ones, if every run of the group has them."""
    return last_scores(group, all("final" in run.full for run in group.scored)) if group.scored else []


def _cells(group: Group, evaluations: Sequence[Evaluation]) -> list[str]:
    run = group.runs[0]
    seeds = ", ".join(str(seed_run.config.get("seed", "?")) for seed_run in group.scored or group.runs)
    return [
        _label(group),
        _network(run),
        _distinct(_parameters(seed_run.path) for seed_run in group.runs),
        _data(run),
        _coded(run.config),
        _steps(run, evaluations),
        _scores(evaluations),
        f"{len(evaluations) or len(group.runs)} (seed {seeds})",
        _distinct(_scored_on(evaluation.provenance) for evaluation in evaluations),
        _distinct(str(evaluation.provenance.get("hardware", UNKNOWN)) for evaluation in evaluations),
        _command(run),
    ]


def _distinct(values: Iterable[str]) -> str:
    """The distinct values, separated by slashes."""
    return " / ".join(dict.fromkeys(values)) or UNKNOWN


def _label(group: Group) -> str:
    cases = {_study(run).get("case") for run in group.runs}
    return str(cases.pop() or group.label) if len(cases) == 1 else group.label


def _network(run: Run) -> str:
    options = {key.removeprefix("model."): value for key, value in run.config.items() if key.startswith("model.")}
    name = str(options.pop("name", UNKNOWN))
    others = ", ".join(f"{key} {value}" for key, value in options.items() if value and value != name)
    return f"{name} ({others})" if others else name


def _parameters(folder: Path) -> str:
    """The number of parameters in the snapshot. Only the header of the file is read."""
    try:
        with safe_open(folder / "snapshot.safetensors", framework="np") as file:
            names = [name for name in file.keys() if name.rsplit(".", 1)[-1] not in BUFFERS]  # noqa: SIM118
            return f"{sum(prod(file.get_slice(name).get_shape()) for name in names):,}"
    except (OSError, SafetensorError):
        return UNKNOWN


def _data(run: Run) -> str:
    name, limit = run.config.get("data.name", UNKNOWN), run.config.get("data.limit")
    return f"{name}, {limit:,} images" if isinstance(limit, int) else str(name)


def _coded(config: dict[str, Any]) -> str:
    """The coded blocks, each with its weight, and N/K. The three kinds of recipe have them under different keys."""
    descriptions = []
    for section in ("coded.generator", "coded.critic", "coded", "method.coded"):
        blocks, mu = config.get(f"{section}.blocks"), config.get(f"{section}.mu")
        weight, end = config.get(f"{section}.weight"), config.get(f"{section}.weight_end")
        share = config.get(f"{section}.share")
        if not blocks or not (mu or weight or end or share):
            continue
        strength = f"weight {weight}" + ("" if end is None else f" to {end}") if mu is None else f"mu {mu}"
        strength = f"held at {share} of the gradient" if share else strength
        against = config.get(f"{section}.against", "outputs")
        names = ", ".join(str(block) or "the whole network" for block in blocks)
        part = section.removeprefix("method.").removeprefix("coded").removeprefix(".")
        descriptions.append(
            f"{part}: " * bool(part) + names + f", {strength}" + ", against labels" * (against == "labels")
        )
    top = "method.coded" if "method.coded.blocks" in config else "coded"
    first, last = (config.get(f"{top}.ratio_{end}") for end in ("start", "end"))
    return f"{'; '.join(descriptions)}; N/K {first} to {last}" if descriptions else "none"


def _steps(run: Run, evaluations: Sequence[Evaluation]) -> str:
    steps = sorted({evaluation.step for evaluation in evaluations} or {run.steps_done})
    total = run.config.get("training.steps")
    short = isinstance(total, int) and steps[0] < total
    return _distinct(f"{step:,}" for step in steps) + (f" of {total:,}" if short else "")


def _scores(evaluations: Sequence[Evaluation]) -> str:
    cells = []
    for name in score_names(evaluations):
        scored = [evaluation for evaluation in evaluations if name in evaluation.scores]
        extractor = _distinct(str(evaluation.provenance.get("extractor", "inception")) for evaluation in scored)
        # A file written by another program may call any distance FID.
        title = name if name not in INCEPTIONS or extractor == "inception" else f"{name} of {extractor}, not Inception"
        cells.append(f"{title}: {with_spread(*mean_and_error([evaluation.scores[name] for evaluation in scored]))}")
    return "<br>".join(cells) or "none yet"


def _scored_on(provenance: dict[str, Any]) -> str:
    def count(key: str) -> str:
        value = provenance.get(key)
        return f"{value:,}" if isinstance(value, int) else UNKNOWN

    reference = f"{provenance.get('reference.data', UNKNOWN)} ({provenance.get('reference.split', UNKNOWN)})"
    if "extractor" in provenance:
        weights = str(provenance.get("weights_sha256", UNKNOWN))[:8]
        features = f"features of {provenance['extractor']} (weights {weights})"
        return f"{count('num_samples')} generated against {count('num_reference')} of {reference}, {features}"
    labels = f", {count('num_labels')} labels, k = {provenance.get('k')}" if "num_labels" in provenance else ""
    return f"{count('num_images')} of {reference}{labels}"


def _command(run: Run) -> str:
    study = _study(run).get("spec")
    command = f"python -m cs_gan.study {study}" if study else command_of(run)
    return f"`{command}`" if command else UNKNOWN


def _study(run: Run) -> dict[str, Any]:
    """The study and the case of a run in ``<study>/runs/``. Empty for any other run."""
    folder = run.path.resolve()
    try:
        results = json.loads((folder.parents[1] / "results.json").read_text(encoding="utf-8"))
        for point in results["points"]:
            if any(Path(entry["folder"]).name == folder.name for entry in point["runs"]):
                return {"spec": results["study"], "case": point["case"]}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    return {}
