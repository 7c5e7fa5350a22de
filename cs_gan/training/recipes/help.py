"""The short help of a script, and its list of recipes."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from textwrap import fill, shorten

from cs_gan import __version__
from cs_gan.flat_keys import flatten
from cs_gan.training.recipes.parse import as_plain
from cs_gan.training.recipes.sections import RunConfig

WIDTH = 80
# The keys that people change most. Each script shows the ones that it has.
KEYS = {
    "data.name": "digits, cifar10, ...; or folder: your own",
    "data.root": "folder or zip of images, if needed",
    "model.name": "network, or pair of networks",
    "model.generator": "your own: module:Class; needs model.critic",
    "training.steps": "number of updates",
    "training.epochs": "passes over the images, instead of steps",
    "training.batch_size": "images per step and process",
    "training.learning_rate": "initial learning rate",
    "coded.critic.blocks": "such as blocks.1,blocks.2; [] is plain",
    "coded.critic.share": "share of the gradient; null is 0.03",
    "coded.critic.weight": "a fixed weight instead",
    "coded.generator.blocks": "the same for the generator",
    "coded.blocks": "such as encoder; [] is plain",
    "coded.share": "share of the gradient; null is 0.03",
    "coded.weight": "a fixed weight instead",
    "coded.ratio_end": "N/K at the end of training",
    "method.coded.blocks": "'[\"\"]' is the whole network; [] is plain",
    "method.coded.mu": "weight of the coded penalty, below 1",
    "metrics.extractor": "features for the scores; none: no scores",
    "seed": "seed of all randomness",
    "output_dir": "run's folder; null is samples/RECIPE[-DIR]",
    "resume": "auto resumes the folder's run; or a path",
}
WORDS = {
    "--list-recipes": "all recipes, one line each",
    "--dry-run": "run one step and estimate the total time",
    "--extend": "train a run longer (docs/recipes.md)",
    "--print_completion=shtab-bash": "shell completion (pip install shtab)",
    "--version": "the version of this package",
    "--help-all": "all keys with their meaning",
}


def answer(arguments: Sequence[str], kind: type[RunConfig], prog: str, description: str, recipes: Path) -> str:
    """The text for ``--version``, ``--list-recipes`` or ``--help``; empty if none of them is among the arguments."""
    if "--version" in arguments:
        return f"{prog} of cs-gan {__version__}"
    if "--list-recipes" in arguments:
        return recipe_list(recipes, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    if "--help" in arguments or "-h" in arguments:
        return short_help(kind, prog, description, recipes)
    return ""


def recipe_list(folder: Path, width: int | None = None) -> str:
    """The recipes in a folder, each with the first sentence of its comment, cut to ``width`` characters if given."""
    paths = sorted(folder.glob("*.yaml"))
    longest = max((len(path.stem) for path in paths), default=0)
    lines = []
    for path in paths:
        comment = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
        text = " ".join(line.strip("# ") for line in comment)
        about = re.split(r"; |(?<!et al)[.:] (?=[A-Z])", text)[0].removesuffix(".")
        room = None if width is None else max(width - longest - 2, 20)
        lines.append(f"{path.stem:<{longest}}  {shorten(about, room, placeholder=' ...') if room else about}".rstrip())
    return "\n".join([*lines, "", f"Use one with --config {os.path.relpath(folder)}/NAME.yaml"])


def short_help(kind: type[RunConfig], prog: str, description: str, recipes: Path) -> str:
    """Usage, how recipes work, the keys that people change, and where the rest is; at most 80 columns."""
    defaults = flatten(as_plain(kind()))
    keys = {f"--{key}={_shown(defaults[key])}": about for key, about in KEYS.items() if key in defaults}
    about = (
        f"A recipe is a YAML file of keys; {os.path.relpath(recipes)} has some. All other keys have their defaults. "
        "Keys on the command line win over recipes; of several recipes the later one wins. Repeat the command to "
        f"resume a stopped run. For several processes: accelerate launch {prog} ..."
    )
    return "\n".join(
        [
            f"usage: {prog} [--config RECIPE.yaml ...] [--KEY=VALUE ...]",
            "",
            fill(description, WIDTH),
            "",
            fill(about, WIDTH),
            "",
            "most used keys, with their defaults:",
            *_table(keys),
            "",
            "other options:",
            *_table(WORDS),
        ]
    )


def _table(rows: dict[str, str]) -> list[str]:
    longest = max(map(len, rows))
    return [f"  {name:<{longest}}  {about}" for name, about in rows.items()]


def _shown(value: object) -> str:
    """A default as the command line takes it."""
    return "null" if value is None else str(value)
