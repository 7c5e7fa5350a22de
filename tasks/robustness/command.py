"""``evaluate.py attack``: attack a classifier under Randomized Coded Inference, and check the gates of a claim."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cs_gan.attacks import THREATS, Interval, ResultRow, ThreatModel, check_gates, find_threat, verdict
from cs_gan.attacks.threats import SQUARE
from cs_gan.errors import ConfigError
from cs_gan.report import save_robustness
from cs_gan.runs import Row, append_line, read_lines, write_whole
from tasks.job import Command, Job
from tasks.options import epsilons, names, positive, seed
from tasks.robustness.plan import BASELINE, DEFENDED, SIZES, Planned, plan
from tasks.robustness.setup import Bench

FRESH = "neighbours clean and fresh"


def attack(job: Job) -> None:
    """Attack a classifier under Randomized Coded Inference with every threat model, and check what may be claimed."""
    bench = Bench(job)
    notes: list[str] = []
    folder = job.beside("robustness", bench.output)
    folder.mkdir(exist_ok=True)
    threats = chosen_threats(bench, notes)
    planned = plan(
        threats, job.arguments.eps, bench.budget, features=bench.images[0].numel(), images=len(bench.images),
        group=job.arguments.group,
        surrogate=bench.digest("surrogate"), plain=bench.digest("plain"),
    )  # fmt: skip
    for note in notes:
        print(f"note: {note}")
    ledger = Ledger(folder / "robustness.jsonl", bench.provenance())
    defence = ledger.get("defence", bench.measure)
    print(f"{len(bench.images)} of {bench.test.description}; {len(planned)} rows; {folder / 'robustness.jsonl'}")
    without, defended = Interval(**defence["plain"]), Interval(**defence["defended"]["mean"])
    print(f"without RCI {without}, with RCI {defended}")
    rows = run_all(bench, planned, ledger)
    gates = check_gates([ResultRow.from_dict(row) for row in rows if row["network"] == DEFENDED])
    found = verdict(gates)
    result = {
        "claim": found.claim,
        "sentence": found.sentence,
        "gates": [gate._asdict() for gate in gates],
        "networks": bench.networks(defence),
        "defence": defence,
        "rows": rows,
        "threats": {threat.name: {"kind": threat.kind, "knows": threat.knows} for threat in threats},
        "notes": notes,
        "provenance": bench.provenance() | bench.others(),
    }
    write_whole(folder / "robustness.json", json.dumps(result, indent=2) + "\n")
    write_whole(folder / "robustness.csv", as_csv(rows))
    save_robustness(folder / "robustness.html", result)
    for gate in gates:
        print(f"  {'passed' if gate.passed else 'FAILED'}  {gate.name}: {gate.evidence}")
    failed = ", ".join(gate.name for gate in gates if not gate.passed)
    print(f"no robustness claim: failed {failed}" if failed else found.sentence)
    print(f"robustness: {folder / 'robustness.html'}")


def chosen_threats(bench: Bench, notes: list[str]) -> list[ThreatModel]:
    """The threats in ``--threats`` (ConfigError if one can't run), or all that can run. Notes list the others."""
    asked: Sequence[str] | None = bench.job.arguments.threats
    threats = {threat.name: threat for threat in map(find_threat, asked or THREATS)}
    group = min(bench.job.arguments.group, len(bench.images))
    lacks = {
        "transfer": "" if "surrogate" in bench.other else "needs another network: --surrogate <snapshot>",
        SQUARE: "" if find_spec("pyautoattack") else 'needs pyautoattack: pip install "cs-gan[attacks]"',
        FRESH: "" if group == 1 or len(bench.images) > group else "needs more --images than --group",
    }
    for name in [name for name in threats if lacks.get(name)]:
        if asked:
            raise ConfigError(f"threat {name!r} {lacks[name]}.")
        notes.append(f"threat {name!r} is left out: it {lacks[name]}.")
        del threats[name]
    return list(threats.values())


# -- rows ------------------------------------------------------------------------------------------


@dataclass
class Ledger:
    """The results computed with one provenance, in a file that stays readable if the process is killed."""

    path: Path
    provenance: Row

    def __post_init__(self) -> None:
        # The snapshot counts by its digest, not by its path.
        about = {key: value for key, value in self.provenance.items() if key != "snapshot"}
        self.key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        lines = read_lines(self.path)
        self.found = {line.get("row"): line.get("found") for line in lines if line.get("key") == self.key}

    def get(self, identity: str, compute: Callable[[], Any]) -> Any:
        """The stored result, or else that of ``compute``, which is then stored."""
        if identity not in self.found:
            found = compute()
            append_line(self.path, {"key": self.key, "row": identity, "found": found})
            self.found[identity] = found
        return self.found[identity]


def run_all(bench: Bench, planned: Sequence[Planned], ledger: Ledger) -> list[Row]:
    """Compute all rows. Print a line for each, with the estimated remaining time."""
    given = bench.job.arguments
    passes = {
        row.identity: row.passes(len(bench.images), given.group, given.targets, given.draws * given.votes)
        for row in planned
    }
    done = [row for row in planned if row.identity in ledger.found]
    if done:
        print(f"{len(done)} of {len(planned)} rows are there already")
    left, spent, seconds = sum(passes.values()) - sum(passes[row.identity] for row in done), 0.0, 0.0
    rows = []
    for number, row in enumerate(planned, 1):
        start, known = time.perf_counter(), row.identity in ledger.found
        try:
            found: list[Row] = ledger.get(row.identity, partial(bench.run, row))
        except KeyboardInterrupt:
            print(f"stopped after {number - 1} of {len(planned)} rows; the same command continues from there")
            raise
        rows += found
        if known:
            continue
        took = time.perf_counter() - start
        seconds, spent, left = seconds + took, spent + passes[row.identity], left - passes[row.identity]
        name = SIZES if row.sizes else f"{row.threat.name} ({found[0]['attack']})"
        against = row.network if row.role == BASELINE else name
        mean, worst = found[0]["mean"], found[0]["worst"]
        print(
            f"[{number:>{len(str(len(planned)))}}/{len(planned)}] {against}, {given.norm} eps {row.label}: "
            f"{100 * mean:.1f} %, worst of {found[0]['draws']} {100 * worst:.1f} %; {took:.1f} s, about "
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
