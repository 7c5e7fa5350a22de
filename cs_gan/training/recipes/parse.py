"""Read recipes from YAML and the command line."""

from __future__ import annotations

import difflib
import json
import os
import re
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from cs_gan.errors import ConfigError
from cs_gan.flat_keys import flatten
from cs_gan.names import nearest_or_all
from cs_gan.read_yaml import read_yaml
from cs_gan.runs import write_whole
from cs_gan.training.recipes.keys import require
from cs_gan.training.recipes.sections import DataConfig, RunConfig

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

Config = TypeVar("Config", bound=RunConfig)
SAMPLES = "samples"
"""The default folder of runs."""
ALONE = {"--dry-run": "--dry_run=true", "--extend": "--extend=hold", "--overwrite": "--overwrite=true"}
"""The meaning of words that are given without a value."""
COMPLETION = "--print_completion"
SYNONYMS = {
    **{"lr": "learning_rate", "bs": "batch_size", "batch": "batch_size", "wd": "weight_decay", "beta": "betas"},
    **{"path": "root", "dataset": "name", "size": "image_size", "resolution": "image_size", "z_dim": "latent_dim"},
    **{"out": "output_dir", "outdir": "output_dir", "save_dir": "output_dir", "gp": "gradient_penalty"},
}
"""What other code bases call a key."""


def parse_config(
    kind: type[Config],
    arguments: Sequence[str],
    *,
    prog: str = "",
    description: str = "",
    recipes: Path | None = None,
) -> Config:
    """The configuration from ``--config <file>`` and ``--key=value`` arguments.

    Keys win over files in any order. Of two files, or of one key given twice, the later one wins. ``training.steps`` as
    a key wins over ``training.epochs`` in a file, from which steps would follow; of both as keys the later one wins.

    Args:
        kind: the class of the recipe.
        arguments: the command line, without the program's name.
        prog, description: for ``--help``.
        recipes: the folder in which ``--config NAME`` finds NAME.yaml.

    Raises:
        ConfigError: for an unknown key (with the nearest known one), a wrong type, an invalid value or a missing file.
        SystemExit: after ``--help`` and ``--print_completion=shtab-<shell>``.
    """
    if any(word.startswith(COMPLETION) for word in arguments):
        if find_spec("shtab") is None:
            raise ConfigError(f"{COMPLETION} needs the package shtab: `pip install shtab`.")
        from jsonargparse import set_parsing_settings

        set_parsing_settings(add_print_completion_argument=True)
        _parser.cache_clear()
    parser = _parser(kind, prog, description)  # type: ignore[arg-type]  # mypy takes no dataclass for Hashable
    words = _files_first(arguments, kind)
    try:
        parsed = parser.parse_args([_inline(word, recipes, kind) for word in words])
        _require_sections(parsed, kind)
        values = parser.instantiate(parsed)
    except (ArgumentError, yaml.YAMLError) as error:
        raise ConfigError(_explained(str(error), kind)) from None
    lengths = [name for word in words if (name := word.partition("=")[0]) in ("--training.steps", "--training.epochs")]
    if lengths[-1:] == ["--training.steps"] and hasattr(values["training"], "epochs"):
        values["training"].epochs = None
    config = kind(**{key.name: values[key.name] for key in fields(kind)})
    if config.output_dir is None:
        files = [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
        named = files and not files[-1].lstrip().startswith("{")
        config.output_dir = os.path.join(SAMPLES, (Path(files[-1]).stem if named else "run") + _of_data(config.data))
    return config


def _of_data(data: DataConfig) -> str:
    """``-cats`` for one's own images in ``cats/`` or ``cats.zip``, so that two folders give two runs; else nothing."""
    own = data.root if data.name == "folder" else data.name if ":" in data.name else None
    if not own:
        return ""
    name = Path(own).expanduser().absolute().name
    stem = re.sub(r"\.(zip|parquet|npz|tar)$", "", name, flags=re.IGNORECASE)
    return "-" + (re.sub(r"[^\w.-]+", "_", stem).strip(".") or "images")


@cache  # building one takes longer than a parse
def _parser(kind: type[RunConfig], prog: str, description: str) -> ArgumentParser:
    from jsonargparse import ArgumentParser  # here, because --help and a study's jobs only need recipes as they are

    parser = ArgumentParser(
        prog=prog,
        exit_on_error=False,
        allow_abbrev=False,  # --training.step would pass for --training.steps
        description=description,
    )
    parser.add_argument("--config", action="config", help="a recipe: a file from configs/")
    parser.add_class_arguments(kind)
    return parser


def save_config(config: RunConfig, path: Path, command: str = "") -> None:
    """Write the resolved configuration as a recipe for ``--config``, atomically.

    Args:
        command: the command that started the run, for a comment in the first line.
    """
    comment = f"# {' '.join(command.split())}\n" if command else ""
    write_whole(path, comment + yaml.safe_dump(as_plain(config), sort_keys=False))


def as_plain(config: RunConfig) -> dict[str, Any]:
    """Nested dicts and lists, for YAML and JSON."""
    plain: dict[str, Any] = _plain(asdict(config))
    return plain


def differences(old: dict[str, Any], config: RunConfig) -> list[str]:
    """Lines ``key: old -> new`` for the differences between a stored and a current configuration.

    A key that ``old`` lacks, because it is newer than that run, counts as its default.
    """
    before, after = flatten(old), flatten(as_plain(config))
    before = {key: value for key, value in flatten(as_plain(type(config)())).items() if key in after} | before
    return [f"{k}: {before.get(k)} -> {after.get(k)}" for k in sorted(before | after) if before.get(k) != after.get(k)]


def _files_first(arguments: Sequence[str], kind: type[RunConfig]) -> list[str]:
    """Sort: recipes, whole sections (``--training=<file>``), keys. In jsonargparse the later argument wins."""
    groups: list[list[str]] = []
    for word in arguments:
        if word.startswith("--") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)  # the value of ``--key value``
    sections = _sections(kind)

    def rank(words: list[str]) -> int:
        name = words[0].partition("=")[0]
        return 0 if name == "--config" else 1 if name.removeprefix("--") in sections else 2

    groups = [[ALONE.get(words[0], words[0])] if len(words) == 1 else words for words in groups]
    groups = [["=".join(words)] if words[0] == "--config" and len(words) == 2 else words for words in groups]
    return [word for words in sorted(groups, key=rank) for word in words]


def _sections(kind: type[RunConfig]) -> set[str]:
    """The names of the recipe's sections, such as ``coded.critic``."""
    return {key[:dot] for key in flatten(asdict(kind())) for dot, letter in enumerate(key) if letter == "."}


def _inline(word: str, recipes: Path | None, kind: type[RunConfig]) -> str:
    """``--config=FILE`` with the content of the file, read as studies read it. Other words stay."""
    option, equals, value = word.partition("=")
    if option != "--config" or not equals:
        return word
    if value.lstrip().startswith("{"):  # the recipe itself
        with suppress(yaml.YAMLError, RecursionError):
            _require_no_class(yaml.safe_load(value), kind)
        return word
    path = _recipe_file(value, recipes)
    if not path.is_file():
        return word
    content = read_yaml(path, "the recipe")
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: the recipe must be a mapping of keys, not {type(content).__name__}.")
    _require_no_class(content, kind)
    return f"{option}={json.dumps(content)}"


def _recipe_file(value: str, recipes: Path | None) -> Path:
    """The path of a recipe: as it is given, or that of the recipe of this name."""
    path = Path(value)
    if path.exists() or recipes is None or not re.fullmatch(r"[\w-]+", value):
        return path
    named = recipes / f"{value}.yaml"
    if not named.is_file():
        known = sorted(recipe.stem for recipe in recipes.glob("*.yaml"))
        raise ConfigError(
            f"--config={value}: there is no such file, and no recipe of that name. {nearest_or_all(value, known)}"
        )
    return named


def _require_no_class(recipe: Any, kind: type[RunConfig]) -> None:
    """Refuse a recipe that names a class in place of a section.

    jsonargparse would import it before it refuses it, and the recipe may come with someone else's snapshot.
    """
    sections = _sections(kind)
    for key, value in flatten(recipe).items() if isinstance(recipe, Mapping) else ():
        named = key in sections and value is not None and not isinstance(value, Mapping)
        if named or key.split(".")[-1] in ("class_path", "init_args", "dict_kwargs"):
            raise ConfigError(f"{key} = {value!r}: a recipe can't name a class here. Give a section of keys.")


def _require_sections(values: Any, kind: type, prefix: str = "") -> None:
    """Refuse an empty section (``training:`` and nothing below it), which arrives as None."""
    from jsonargparse import Namespace

    for section in fields(kind):
        # With postponed annotations a field's type is its name; the factory is the class.
        if is_dataclass(section.default_factory):
            name, value = prefix + section.name, values[section.name]
            require(isinstance(value, Namespace), name, value, "a section of keys; leave it out for its defaults")
            _require_sections(value, section.default_factory, f"{name}.")


_UNKNOWN_KEY = re.compile(
    r"unrecognized arguments: --(?P<flag>[\w.-]+)"
    r"|Group '(?P<group>[\w.]+)' does not accept option '(?P<option>[\w.]+)'"
    r"|Option '(?P<key>[\w.]+)' is not accepted"
)

_INSIDE_A_VALUE = re.compile(r"key \"([\w.]+)\".*NestedArg\(key='([\w.]+)'", re.DOTALL)


def _explained(message: str, kind: type[RunConfig]) -> str:
    """jsonargparse's message on one line. For an unknown key, the nearest valid one."""
    unknown = _UNKNOWN_KEY.search(message)
    if inside := _INSIDE_A_VALUE.search(message):
        key, below = inside.groups()
        return f"{key} is a value, not a section: it has no key {below!r}. Give --{key}=<value>."
    if not unknown:
        return re.sub(r"<class '(\w+)'>|typing\.", r"\1", " ".join(message.split()))
    key = ".".join(part for part in unknown.groups() if part)
    valid = list(flatten(asdict(kind())))
    near = difflib.get_close_matches(key, valid, n=2, cutoff=0.6)
    last = key.split(".")[-1]  # two names that have only their section in common aren't near
    usual = [name for name in valid if name.split(".")[-1] == SYNONYMS.get(last)]
    if usual:
        near = [name for name in usual if name.split(".")[:-1] == key.split(".")[:-1]] or usual[:2]
    near = (
        (usual and near)
        or [name for name in near if difflib.get_close_matches(last, [name.split(".")[-1]])]
        or near[:1]
    )
    if not near and (names := difflib.get_close_matches(key, [name.split(".")[-1] for name in valid], n=1)):
        near = [name for name in valid if name.split(".")[-1] == names[0]][:3]  # the section was left out
    hint = f"Did you mean {' or '.join(near)}?" if near else "See `--help-all` for all keys."
    return f"unknown configuration key {key!r}. {hint}"


def _plain(value: Any) -> Any:
    """Tuples as lists, for YAML and JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
