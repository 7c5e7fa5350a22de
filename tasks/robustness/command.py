"""``evaluate.py attack``: attack a classifier under Randomized Coded Inference, and check the attacks themselves."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from cs_gan.attacks import THREATS, Interval, ResultRow, ThreatModel, find_threat, run_sanity_checks, verdict
from cs_gan.attacks.threats import SQUARE
from cs_gan.errors import ConfigError
from cs_gan.report import save_robustness
from cs_gan.runs import Row, write_whole
from tasks.job import Command, Job
from tasks.options import epsilons, names, positive, seed
from tasks.robustness.ledger import Ledger
from tasks.robustness.plan import BASELINE, DEFENDED, SIZES, PlannedRow, plan
from tasks.robustness.setup import AttackSetup

FRESH = "neighbours clean and fresh"


def attack(job: Job) -> None:
    """Attack a classifier under Randomized Coded Inference with every threat model, and check what may be claimed."""
    setup = AttackSetup(job)
    notes: list[str] = []
    folder = job.beside("robustness", setup.output)
    folder.mkdir(exist_ok=True)
    threats = chosen_threats(setup, notes)
    planned = plan(
        threats, job.arguments.eps, setup.budget, features=setup.images[0].numel(), images=len(setup.images),
        group=job.arguments.group,
        surrogate=setup.digest("surrogate"), plain=setup.digest("plain"),
    )  # fmt: skip
    for note in notes:
        print(f"note: {note}")
    ledger, provenance = Ledger(folder / "robustness.jsonl"), digest(setup.provenance())
    defence = ledger.get(f"{provenance}|defence", setup.measure)
    print(f"{len(setup.images)} of {setup.test.description}; {len(planned)} rows; {folder / 'robustness.jsonl'}")
    without, defended = Interval(**defence["plain"]), Interval(**defence["defended"]["mean"])
    print(f"without RCI {without}, with RCI {defended}")
    rows = run_all(setup, [(f"{provenance}|{row.identity}", row) for row in planned], ledger)
    checks = run_sanity_checks([ResultRow.from_dict(row) for row in rows if row["network"] == DEFENDED])
    conclusion = verdict(checks)
    result = {
        "claim": conclusion.claim,
        "sentence": conclusion.sentence,
        "sanity_checks": [check._asdict() for check in checks],
        "networks": setup.networks(defence),
        "defence": defence,
        "rows": rows,
        "threats": {threat.name: {"kind": threat.kind, "knows": threat.knows} for threat in threats},
        "notes": notes,
        "provenance": setup.provenance() | setup.others(),
    }
    write_whole(folder / "robustness.json", json.dumps(result, indent=2) + "\n")
    write_whole(folder / "robustness.csv", as_csv(rows))
    save_robustness(folder / "robustness.html", result)
    for check in checks:
        outcome = "passed" if check.passed else "FAILED" if check.judged else "open  "
        print(f"  {outcome}  {check.name}: {check.evidence}")
    failed = ", ".join(check.name for check in checks if not check.passed)
    print(f"no robustness claim: failed {failed}" if failed else conclusion.sentence)
    print(f"robustness: {folder / 'robustness.html'}")


def chosen_threats(setup: AttackSetup, notes: list[str]) -> list[ThreatModel]:
    """The threats in ``--threats`` (ConfigError if one can't run), or all that can run. Notes list the others."""
    requested: Sequence[str] | None = setup.job.arguments.threats
    threats = {threat.name: threat for threat in map(find_threat, requested or THREATS)}
    group = min(setup.job.arguments.group, len(setup.images))
    reasons = {
        "transfer": "" if "surrogate" in setup.other else "needs another network: --surrogate <snapshot>",
        SQUARE: "" if find_spec("pyautoattack") else 'needs pyautoattack: pip install "cs-gan[attacks]"',
        FRESH: "" if group == 1 or len(setup.images) > group else "needs more --images than --group",
    }
    for name in [name for name in threats if reasons.get(name)]:
        if requested:
            raise ConfigError(f"threat {name!r} {reasons[name]}.")
        notes.append(f"threat {name!r} is left out: it {reasons[name]}.")
        del threats[name]
    return list(threats.values())


# -- rows ------------------------------------------------------------------------------------------


def digest(provenance: Row) -> str:
    """A short name for a provenance. The snapshot counts by its digest, not by its path."""
    portable = {key: value for key, value in provenance.items() if key != "snapshot"}
    return hashlib.sha256(json.dumps(portable, sort_keys=True).encode()).hexdigest()[:16]


def run_all(setup: AttackSetup, planned: Sequence[tuple[str, PlannedRow]], ledger: Ledger) -> list[Row]:
    """Compute all rows, each with its key in the ledger. Print a line for each, with the estimated remaining time."""
    arguments = setup.job.arguments
    passes = {
        key: row.passes(len(setup.images), arguments.group, arguments.targets, arguments.draws * arguments.votes)
        for key, row in planned
    }
    done = [key for key, _ in planned if key in ledger]
    if done:
        print(f"{len(done)} of {len(planned)} rows are there already")
    left, spent, seconds = sum(passes.values()) - sum(passes[key] for key in done), 0.0, 0.0
    rows = []
    for number, (key, row) in enumerate(planned, 1):
        start, stored = time.perf_counter(), key in ledger
        try:
            results: list[Row] = ledger.get(key, partial(setup.run, row))
        except KeyboardInterrupt:
            print(f"stopped after {number - 1} of {len(planned)} rows; the same command continues from there")
            raise
        # The plan's words for a row, not those of the plan that it was computed for.
        about = {"network": row.network, "role": row.role, "eps_given": row.label, "eps_pixels": row.pixels}
        rows += [about | result | about for result in results]
        if stored:
            continue
        took = time.perf_counter() - start
        seconds, spent, left = seconds + took, spent + passes[key], left - passes[key]
        name = SIZES if row.sizes else f"{row.threat.name} ({results[0]['attack']})"
        against = row.network if row.role == BASELINE else name
        mean, worst = results[0]["mean"], results[0]["worst"]
        print(
            f"[{number:>{len(str(len(planned)))}}/{len(planned)}] {against}, {arguments.norm} eps {row.label}: "
            f"{100 * mean:.1f} %, worst of {results[0]['draws']} {100 * worst:.1f} %; {took:.1f} s, about "
            f"{duration(seconds / max(spent, 1) * left)} left",
            flush=True,
        )
    return rows


def duration(seconds: float) -> str:
    """``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def as_csv(rows: Sequence[Row]) -> str:
    """One line for each row; the values of a list are separated by spaces."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({k: " ".join(map(str, v)) if isinstance(v, list | tuple) else v for k, v in row.items()})
    return text.getvalue()


EPS = "0,2/255,4/255,8/255,16/255"
COMMAND = Command(
    {"classifier": attack},
    {
        "threats": (None, {"type": names, "help": f"separated by commas (all that can be run): {', '.join(THREATS)}"}),
        "eps": (EPS, {"type": epsilons, "help": "radii in units of pixels in [0, 1], such as 8/255 (%(default)s)"}),
        "norm": ("linf", {"choices": ("linf", "l2"), "help": "norm of the perturbation (%(default)s)"}),
        "images": (1000, {"type": positive, "help": "number of test images, drawn by the seed (%(default)s)"}),
        "ratio": (1.5, {"type": float, "help": "N/K of Randomized Coded Inference (%(default)s)"}),
        "blocks": ([""], {"type": names, "help": "blocks that RCI codes, by name or pattern (the whole network)"}),
        "votes": (1, {"type": positive, "help": "forward passes that RCI averages (%(default)s)"}),
        "group": (64, {"type": positive, "help": "images coded together, K (%(default)s)"}),
        "draws": (10, {"type": positive, "help": "new permutations to score on (%(default)s)"}),
        "targets": (64, {"type": positive, "help": "images for threats against one image at a time (%(default)s)"}),
        "steps": (20, {"type": positive, "help": "gradient steps (%(default)s)"}),
        "restarts": (1, {"type": positive, "help": "restarts of each attack (%(default)s)"}),
        "queries": (1000, {"type": positive, "help": "queries of square (%(default)s)"}),
        "loss": ("margin", {"help": "margin or cross-entropy (%(default)s)"}),
        "surrogate": (None, {"type": Path, "help": "another classifier's snapshot, for transfer"}),
        "plain": (None, {"type": Path, "help": "snapshot of a classifier trained without coding, for comparison"}),
        "output": (None, {"type": Path, "help": "folder for the results (robustness/ beside the snapshot)"}),
        "seed": (0, {"type": seed, "help": "seed for images, attacks and permutations (%(default)s)"}),
    },
    "data",
)
