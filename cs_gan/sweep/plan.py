"""The points of a sweep and their runs: which settings, which folder, which command."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cs_gan.errors import ConfigError
from cs_gan.sweep.spec import CASE, Case, Sweep

LONGEST = 120  # characters of a name, well below what file systems take
UNSAFE = re.compile(r"[^a-z0-9._+-]")  # capitals too: some file systems don't tell them apart


@dataclass(frozen=True)
class Point:
    """One point of the grid: runs that differ in nothing but the seed."""

    case: str
    varied: dict[str, Any]
    settings: dict[str, Any]  # what is given to the run: also what is constant in its case
    slug: str

    def value(self, key: str) -> Any:
        """Where it stands on an axis; None where the key isn't of its case."""
        return self.case if key == CASE else self.varied.get(key)


@dataclass(frozen=True)
class Run:
    """A point under one seed.

    ``asked`` is all that it was told, with the recipe's own keys, as JSON would give it back.
    """

    point: Point
    seed: int
    folder: Path
    command: list[str]
    asked: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name


def plan(sweep: Sweep, folder: Path) -> list[Run]:
    """All runs, in the order of the file, seeds outermost: a sweep that is cut short has seen most points once.

    Raises:
        ConfigError: if two of them would share a folder.
    """
    points = list_points(sweep)
    if len({point.slug for point in points}) < len(points):
        raise ConfigError(f"{sweep.path}: two points have the same name. Does a list hold the same value twice?")
    return [_run(sweep, point, seed, folder / "runs") for seed in sweep.seeds for point in points]


def list_points(sweep: Sweep) -> list[Point]:
    """The product within every case."""
    short = short_names(sweep.keys)
    points = []
    for case in sweep.cases:
        for values in itertools.product(*case.varied.values()):
            varied = dict(zip(case.varied, values, strict=True))
            points.append(Point(case.name, varied, case.constant | varied, _slug(case, varied, short)))
    return points


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """The shortest ends of dotted keys that tell them apart: ``method.coded.mu`` -> ``mu``."""
    keys = list(keys)
    short = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        others = [f".{other}" for other in keys if other != key]
        short[key] = next((end for end in ends if not any(o.endswith(f".{end}") for o in others)), key)
    return short


def text(value: Any) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _slug(case: Case, varied: dict[str, Any], short: dict[str, str]) -> str:
    """``coded,mu=0.1,spline=natural``; with a checksum where letters were replaced, or many left out.

    What is safe holds neither comma nor ``=`` nor ``~``, so that different points have different names.
    """
    texts = {key: text(value) for key, value in varied.items()}
    pieces = [UNSAFE.sub("_", case.name.lower())] if case.name else []
    pieces += [f"{short[key]}={UNSAFE.sub('_', value)}" for key, value in texts.items()]
    slug = re.sub(r"[^A-Za-z0-9._+=,-]", "_", ",".join(pieces))
    # The names of cases differ in more than capitals: the file's check.
    if len(slug) > LONGEST or UNSAFE.search("".join([case.name.lower(), *texts.values()])):
        checksum = hashlib.sha256(json.dumps([case.name, texts]).encode()).hexdigest()
        slug = f"{slug[:LONGEST]}~{checksum[:8]}"
    return slug


def _run(sweep: Sweep, point: Point, seed: int, runs: Path) -> Run:
    folder = runs / f"{point.slug}-seed{seed}"
    settings = sweep.fixed | point.settings
    # A sweep's own table is what is looked at; hundreds of event files are only in the way.
    if "tracking.trackers" not in sweep.recipe | settings:
        settings = {"tracking.trackers": "none"} | settings
    command = [sys.executable, str(sweep.script), *([f"--config={sweep.config}"] if sweep.config else [])]
    command += [f"--{key}={text(value)}" for key, value in settings.items()]
    command += [f"--seed={seed}", f"--output_dir={folder}", "--resume=auto"]
    # Where runs go is no part of what they are.
    recipe = {key: value for key, value in sweep.recipe.items() if key not in ("seed", "output_dir", "resume")}
    asked = {"script": str(sweep.script), **recipe, **settings, "seed": seed}
    return Run(point, seed, folder, command, json.loads(json.dumps(asked, default=str)))
