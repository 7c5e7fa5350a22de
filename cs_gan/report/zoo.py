"""Runs as a Markdown table: what each is, what it scored, and the command that made it."""

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
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm: the only ones in models/
INCEPTIONS = ("FID", "IS", "KID")
HEAD = """# Runs

A row is a run, or runs that differ only in the seed: mean ± standard error over n of them, after the last step. Scores
are named for the features they are measured on, and only Inception's give an FID. They compare where "scored on" is the
same. The parameters are those of the snapshot: of a GAN the generator's, of an encoder with its projector.
"""


def save_zoo(path: Path, runs: Sequence[Path]) -> None:
    """Write run folders as one Markdown table, whole or not at all.

    Raises:
        DataError: if a folder is no run.
    """
    groups = group_runs([read_run(run) for run in runs])
    lines = [HEAD, markdown_row(COLUMNS), markdown_row("---" for _ in COLUMNS)]
    warnings = [f"- {label}: a seed occurs twice, so ± is no error over seeds." for label in repeated_seeds(groups)]
    for group in groups:
        chosen = _chosen(group)
        lines.append(markdown_row(_cells(group, chosen)))
        warnings += [
            f"- {_label(group)}: {key} is not the same for all its scores: {', '.join(values)}."
            for key, values in score_conflicts([[one] for one in chosen]).items()
        ]
    words = ["python -m cs_gan.report", *_patterns(runs), f"--output {shlex.quote(str(path))}"]
    lines += ["", *warnings, *([""] if warnings else []), "Written by", "", "```bash", " \\\n  ".join(words), "```", ""]
    write_text(path, "\n".join(lines))


def _patterns(runs: Sequence[Path]) -> list[str]:
    """Their paths as a shell takes them; ``folder/*`` for all of a folder's."""
    found: dict[str, None] = {}
    for run in runs:
        beside = {path for path in run.parent.iterdir() if path.is_dir()}
        every = len(beside) > 1 and beside <= set(runs)
        found[f"{shlex.quote(str(run.parent))}/*" if every else shlex.quote(str(run))] = None
    return list(found)


def _chosen(group: Group) -> list[Evaluation]:
    """Each run's last scores, in full where all of the group have such."""
    return last_scores(group, all("final" in run.full for run in group.scored)) if group.scored else []


def _cells(group: Group, chosen: Sequence[Evaluation]) -> list[str]:
    run = group.runs[0]
    seeds = ", ".join(str(each.config.get("seed", "?")) for each in group.scored or group.runs)
    return [
        _label(group),
        _network(run),
        _same(_parameters(each.path) for each in group.runs),
        _data(run),
        _coded(run.config),
        _steps(run, chosen),
        _scores(chosen),
        f"{len(chosen) or len(group.runs)} (seed {seeds})",
        _same(_scored_on(one.provenance) for one in chosen),
        _same(str(one.provenance.get("hardware", UNKNOWN)) for one in chosen),
        _command(run),
    ]


def _same(values: Iterable[str]) -> str:
    """One value, or those that there are."""
    return " / ".join(dict.fromkeys(values)) or UNKNOWN


def _label(group: Group) -> str:
    cases = {_sweep(run).get("case") for run in group.runs}
    return str(cases.pop() or group.label) if len(cases) == 1 else group.label


def _network(run: Run) -> str:
    given = {key.removeprefix("model."): value for key, value in run.config.items() if key.startswith("model.")}
    name = str(given.pop("name", UNKNOWN))
    others = ", ".join(f"{key} {value}" for key, value in given.items() if value and value != name)
    return f"{name} ({others})" if others else name


def _parameters(folder: Path) -> str:
    """Of the snapshot's network, from the file's header alone."""
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
    """The coded blocks of any of the three kinds of recipe, each with its weight, and N/K."""
    found = []
    for section in ("coded.generator", "coded.critic", "coded", "method.coded"):
        blocks, mu = config.get(f"{section}.blocks"), config.get(f"{section}.mu")
        weight, end = config.get(f"{section}.weight"), config.get(f"{section}.weight_end")
        if not blocks or not (mu or weight or end):
            continue
        strength = f"weight {weight}" + ("" if end is None else f" to {end}") if mu is None else f"mu {mu}"
        against = config.get(f"{section}.against", "outputs")
        names = ", ".join(str(block) or "the whole network" for block in blocks)
        part = section.removeprefix("method.").removeprefix("coded").removeprefix(".")
        found.append(f"{part}: " * bool(part) + names + f", {strength}" + ", against labels" * (against == "labels"))
    top = "method.coded" if "method.coded.blocks" in config else "coded"
    first, last = (config.get(f"{top}.ratio_{end}") for end in ("start", "end"))
    return f"{'; '.join(found)}; N/K {first} to {last}" if found else "none"


def _steps(run: Run, chosen: Sequence[Evaluation]) -> str:
    done = sorted({one.step for one in chosen} or {run.steps_done})
    total = run.config.get("training.steps")
    short = isinstance(total, int) and done[0] < total
    return _same(f"{step:,}" for step in done) + (f" of {total:,}" if short else "")


def _scores(chosen: Sequence[Evaluation]) -> str:
    cells = []
    for name in score_names(chosen):
        having = [one for one in chosen if name in one.scores]
        extractor = _same(str(one.provenance.get("extractor", "inception")) for one in having)
        # A file of another hand may call a distance so.
        shown = name if name not in INCEPTIONS or extractor == "inception" else f"{name} of {extractor}, not Inception"
        cells.append(f"{shown}: {with_spread(*mean_and_error([one.scores[name] for one in having]))}")
    return "<br>".join(cells) or "none yet"


def _scored_on(provenance: dict[str, Any]) -> str:
    def count(key: str) -> str:
        value = provenance.get(key)
        return f"{value:,}" if isinstance(value, int) else UNKNOWN

    of = f"{provenance.get('reference.data', UNKNOWN)} ({provenance.get('reference.split', UNKNOWN)})"
    if "extractor" in provenance:
        weights = str(provenance.get("weights_sha256", UNKNOWN))[:8]
        features = f"features of {provenance['extractor']} (weights {weights})"
        return f"{count('num_samples')} generated against {count('num_reference')} of {of}, {features}"
    labels = f", {count('num_labels')} labels, k = {provenance.get('k')}" if "num_labels" in provenance else ""
    return f"{count('num_images')} of {of}{labels}"


def _command(run: Run) -> str:
    sweep = _sweep(run).get("spec")
    command = f"python -m cs_gan.sweep {sweep}" if sweep else command_of(run)
    return f"`{command}`" if command else UNKNOWN


def _sweep(run: Run) -> dict[str, Any]:
    """The study and the case that a run in ``<sweep>/runs/`` is of; nothing for another run."""
    folder = run.path.resolve()
    try:
        told = json.loads((folder.parents[1] / "results.json").read_text(encoding="utf-8"))
        for point in told["points"]:
            if any(Path(one["folder"]).name == folder.name for one in point["runs"]):
                return {"spec": told["sweep"], "case": point["case"]}
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return {}
