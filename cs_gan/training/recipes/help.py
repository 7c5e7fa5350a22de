"""What a script answers about itself: a short help, and the recipes there are."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from textwrap import fill, shorten

from cs_gan.training.recipes.parse import as_plain, flatten
from cs_gan.training.recipes.sections import RunConfig

WIDTH = 80
# What people change, with a few words for it: keys that a script hasn't are passed over.
KEYS = {
    "data.name": "digits, cifar10, ...; or folder: your own",
    "data.root": "folder or zip of images, where one is needed",
    "model.name": "which networks",
    "training.steps": "how many updates",
    "training.epochs": "passes over the images, in place of steps",
    "training.batch_size": "images a step, per process",
    "training.learning_rate": "at the start",
    "coded.critic.blocks": "such as blocks.1,blocks.2; [] is plain",
    "coded.critic.weight": "of their penalty",
    "coded.generator.blocks": "the same for the generator",
    "coded.blocks": "such as encoder; [] is plain",
    "coded.weight": "of their penalty",
    "coded.ratio_end": "N/K, how densely blocks are coded, at the end",
    "method.coded.blocks": "'[\"\"]' is the whole network; [] is plain",
    "method.coded.mu": "share of the coded penalty, from 0 to 1",
    "metrics.extractor": "features for the scores; none: no scores",
    "seed": "of all randomness",
    "output_dir": "the run's folder; null is samples/RECIPE",
    "resume": "auto goes on with the folder's run; or a path",
}
WORDS = {
    "--list-recipes": "the recipes that there are, a line each",
    "--dry-run": "one step, and what the whole would take",
    "--extend": "train on beyond a run's end (docs/recipes.md)",
    "--print_completion=shtab-bash": "shell completion (pip install shtab)",
    "--help-all": "all keys, and what they mean",
}


def answer(arguments: Sequence[str], kind: type[RunConfig], prog: str, description: str, recipes: Path) -> str:
    """What ``--list-recipes`` or ``--help`` among the arguments is answered with; nothing where neither is."""
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
        f"A recipe is a YAML file of keys; {os.path.relpath(recipes)} holds some. What it leaves out has its default. "
        "Keys on the command line win over recipes, wherever they stand; of several recipes the later one wins. The "
        f"same command goes on with a run that was stopped. For several processes: accelerate launch {prog} ..."
    )
    return "\n".join(
        [
            f"usage: {prog} [--config RECIPE.yaml ...] [--KEY=VALUE ...]",
            "",
            fill(description, WIDTH),
            "",
            fill(about, WIDTH),
            "",
            "keys that people change, with their defaults:",
            *_table(keys),
            "",
            "and:",
            *_table(WORDS),
        ]
    )


def _table(rows: dict[str, str]) -> list[str]:
    longest = max(map(len, rows))
    return [f"  {name:<{longest}}  {about}" for name, about in rows.items()]


def _shown(value: object) -> str:
    """A default as the command line takes it."""
    return "null" if value is None else str(value)
