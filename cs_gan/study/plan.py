"""The points of a study and their runs: which settings, which folder, which command."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cs_gan.errors import ConfigError
from cs_gan.files import write_text
from cs_gan.runs.settings import FREE_ON_RESUME
from cs_gan.study.spec import CASE, Case, Study, read_recipe

LONGEST = 120  # maximum length of a name, well below the limits of file systems
NEUTRAL = FREE_ON_RESUME - {"data.root", "training.evaluate_every"}  # settings that change no result
UNSAFE = re.compile(r"[^a-z0-9._+-]")  # also capitals: some file systems ignore case


@dataclass(frozen=True)
class Point:
    """One point of the grid: runs that differ only in the seed."""

    case: str
    varied: dict[str, Any]
    settings: dict[str, Any]  # all settings given to the run, including those constant in its case
    slug: str

    def value(self, key: str) -> Any:
        """Its value on an axis; None if its case doesn't have the key."""
        return self.case if key == CASE else self.varied.get(key)


@dataclass(frozen=True)
class Run:
    """A point with one seed.

    ``asked`` has all its settings and the recipe's keys, as read back from JSON.
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

    @property
    def settings(self) -> str:
        """A digest of the settings that change results."""
        return hashlib.sha256(json.dumps(identity(self.asked), sort_keys=True).encode()).hexdigest()[:8]


def identity(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change results, with the best network among them.

    Where a named data set is on this machine is none of them. A folder of images has no other name.
    """
    left_out = NEUTRAL if asked.get("data.name") == "folder" else NEUTRAL | {"data.root"}
    return {key: value for key, value in asked.items() if key not in left_out}


def plan(study: Study, folder: Path) -> list[Run]:
    """All runs in the order of the file, seed by seed, so that a stopped study has most points at least once.

    Raises:
        ConfigError: if two of them would share a folder.
    """
    points = list_points(study)
    if len({point.slug for point in points}) < len(points):
        raise ConfigError(f"{study.path}: two points have the same name. Does a list contain a value twice?")
    return [_run(study, point, seed, folder / "runs") for seed in study.seeds for point in points]


def list_points(study: Study) -> list[Point]:
    """The product of all settings within each case."""
    points = []
    for case in study.cases:
        short = short_names(case.varied)  # of this case alone: another case must not rename its points
        for values in itertools.product(*case.varied.values()):
            varied = dict(zip(case.varied, values, strict=True))
            points.append(Point(case.name, varied, case.constant | varied, _slug(case, varied, short)))
    return points


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """The shortest unique ends of dotted keys: ``method.coded.mu`` -> ``mu``."""
    keys = list(keys)
    short = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        others = [f".{other}" for other in keys if other != key]
        short[key] = next((end for end in ends if not any(o.endswith(f".{end}") for o in others)), key)
    return short


def text(value: Any) -> str:
    """A value in the syntax of the command line."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _slug(case: Case, varied: dict[str, Any], short: dict[str, str]) -> str:
    """``coded,mu=0.1,spline=natural``; with a checksum if letters were replaced or the name was cut.

    Safe values contain no comma, ``=`` or ``~``, so different points have different names.
    """
    texts = {key: text(value) for key, value in varied.items()}
    pieces = [UNSAFE.sub("_", case.name.lower())] if case.name else []
    pieces += [f"{short[key]}={UNSAFE.sub('_', value)}" for key, value in texts.items()]
    slug = re.sub(r"[^A-Za-z0-9._+=,-]", "_", ",".join(pieces))
    # The file's check ensures that names of cases differ in more than capitals.
    if len(slug) > LONGEST or UNSAFE.search("".join([case.name.lower(), *texts.values()])):
        checksum = hashlib.sha256(json.dumps([case.name, texts]).encode()).hexdigest()
        slug = f"{slug[:LONGEST]}~{checksum[:8]}"
    return slug


def with_recipe_as_read(study: Study, runs: Sequence[Run], folder: Path) -> list[Run]:
    """The runs with a copy of the recipe in the study's folder: an edit doesn't change those that start later.

    Raises:
        ConfigError: if the recipe has changed since the study was read.
    """
    if study.config is None:
        return list(runs)
    copy = folder / f"recipe{study.config.suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(copy, study.config.read_text())
    if read_recipe(copy) != study.recipe:
        raise ConfigError(f"{study.config} was changed while the study started. Start it again.")
    own, copied = f"--config={study.config}", f"--config={copy}"
    return [replace(run, command=[copied if word == own else word for word in run.command]) for run in runs]


def _run(study: Study, point: Point, seed: int, runs: Path) -> Run:
    folder = runs / f"{point.slug}-seed{seed}"
    settings = study.fixed | point.settings
    # The study has its own table. Hundreds of event files would only be in the way.
    if "tracking.trackers" not in study.recipe | settings:
        settings = {"tracking.trackers": "none"} | settings
    # A study takes --minutes. The recipe's time limit would end its runs before their last step.
    if study.recipe.get("training.max_minutes") and "training.max_minutes" not in settings:
        settings = {"training.max_minutes": None} | settings
    command = [sys.executable, str(study.script), *([f"--config={study.config}"] if study.config else [])]
    command += [f"--{key}={text(value)}" for key, value in settings.items()]
    command += [f"--seed={seed}", f"--output_dir={folder}", "--resume=auto"]
    # The output folder is not part of a run's identity.
    recipe = {key: value for key, value in study.recipe.items() if key not in ("seed", "output_dir", "resume")}
    asked = {"script": str(study.script), **recipe, **settings, "seed": seed}
    return Run(point, seed, folder, command, json.loads(json.dumps(asked, default=str)))
