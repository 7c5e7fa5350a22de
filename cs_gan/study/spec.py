"""Read and check the file of a study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cs_gan.errors import ConfigError
from cs_gan.flat_keys import flatten
from cs_gan.names import nearest_or_all
from cs_gan.read_yaml import read_yaml

KEYS = (
    "script",
    "config",
    "seeds",
    "grid",
    "cases",
    "fixed",
    "score",
    "better",
    "baseline",
    "best_of",
    "group",
    "plots",
)
# The study sets these keys of a run, or they are for one run that is continued by hand.
OURS = ("seed", "output_dir", "resume", "config", "dry_run", "overwrite", "extend", "history")
CASE = "case"  # used as a key for the named cases


@dataclass(frozen=True)
class Case:
    """A named combination of settings, of which some vary. A study without cases has one without a name."""

    name: str
    constant: dict[str, Any]
    varied: dict[str, list[Any]]  # the lists of the case, then those of the grid


@dataclass(frozen=True)
class Plots:
    """The plots; None chooses them from the settings that vary."""

    heatmaps: list[tuple[str, str]] | None = None
    lines: list[str] | None = None


@dataclass(frozen=True)
class Study:
    """The runs of a study and their report.

    Args:
        path: the file.
        script: ``train_classifier.py`` or another script that writes a run folder.
        config: the base recipe; None if ``fixed`` has all settings.
        seeds: one run each, at every point.
        cases: the points, not yet multiplied out.
        fixed: settings of all runs, which override the recipe.
        recipe: the content of ``config``.
        scores: names of scores after the last step, or with prefix ``best `` at the best step. The first is used for
            plots and choices. Empty means the primary score of the runs.
        better: direction of the first score: higher or lower; None takes it from the runs, which know it for their
            primary score.
        baseline: the case that the others are compared with, seed by seed; empty for none.
        best_of: whether to report the best point of every group.
        group_by: the key that groups them, or ``case``.
        plots: the plots.
    """

    path: Path
    script: Path
    config: Path | None
    seeds: list[int]
    cases: list[Case]
    fixed: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    scores: list[str] = field(default_factory=list)
    better: Literal["higher", "lower"] | None = None
    baseline: str = ""
    best_of: bool = False
    group_by: str = CASE
    plots: Plots = field(default_factory=Plots)

    @property
    def keys(self) -> list[str]:
        """The keys that vary in any case."""
        return list(dict.fromkeys(key for case in self.cases for key in case.varied))


def read_study(path: Path) -> Study:
    """Read the file. Its paths are relative to the folder in which the study is started.

    Raises:
        ConfigError: for a file that is missing or not YAML, an unknown key (with the nearest), a missing script or
            recipe, a grid without values, or a key that is set twice.
    """
    content = _mapping(read_yaml(path, "the study file"), str(path))
    for key in content:
        if key not in KEYS:
            raise ConfigError(f"{path}: unknown key {key!r}. {nearest_or_all(str(key), KEYS)}")
    script = _existing(path, content, "script")
    if script is None:
        raise ConfigError(f"{path}: script is missing: name the script to run, such as script: train_classifier.py.")
    config = _existing(path, content, "config")
    fixed = _settings(content.get("fixed"), f"{path}: fixed")
    cases = _cases(path, content, fixed)
    better = content.get("better")
    if better not in (None, "higher", "lower"):
        raise ConfigError(f"{path}: better = {better!r} must be higher or lower.")
    if not isinstance(content.get("best_of", False), bool):
        raise ConfigError(f"{path}: best_of = {content['best_of']!r} must be true or false.")
    study = Study(
        path=path,
        script=script,
        config=config,
        seeds=_seeds(path, content.get("seeds")),
        cases=cases,
        fixed=fixed,
        recipe=read_recipe(config) if config else {},
        scores=_names(path, "score", content.get("score")),
        better=better,
        baseline=checked_baseline(path, content.get("baseline"), cases),
        best_of=content.get("best_of", False),
        group_by=str(content.get("group", CASE)),
        plots=_plots(path, content.get("plots")),
    )
    _check_names(study, "group" in content)
    return study


def read_recipe(path: Path) -> dict[str, Any]:
    """The settings of a recipe, by their dotted keys.

    Raises:
        ConfigError: for a file that isn't YAML, or no keys with values.
    """
    return flatten(_mapping(read_yaml(path, "the recipe"), str(path)))


# -- its parts -------------------------------------------------------------------------------------


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{what} must be keys with values, but is {value!r}.")
    return {str(key): item for key, item in value.items()}


def _existing(path: Path, content: Mapping[str, Any], key: str) -> Path | None:
    if content.get(key) is None:
        return None
    file = Path(str(content[key]))
    if not file.is_file():
        raise ConfigError(f"{path}: {key}: there is no file {file} in {Path.cwd()}, where the study was started.")
    return file


def _seeds(path: Path, value: Any) -> list[int]:
    seeds = list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"{path}: seeds = {value!r} must be a number above 0, or a list of seeds such as [0, 1, 2].")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{path}: seeds = {value!r} has a seed twice.")
    return seeds


def _settings(value: Any, what: str) -> dict[str, Any]:
    settings = flatten(_mapping(value, what))
    for key in settings:
        if key in OURS:
            hint = "seeds says which" if key == "seed" else "the study decides it for every run"
            raise ConfigError(f"{what}: {key} can't be set here: {hint}.")
    return settings


def _values(key: str, value: Any, what: str) -> list[Any]:
    """The values of a key that varies."""
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{what}: {key} = {value!r} must be a list of at least one value.")
    for choice in value:
        if choice == "":
            raise ConfigError(
                f"{what}: {key} = {value!r}: the outer list has the values to try, and one of them is empty. For the "
                f'list [""] as one value write {key}: [[""]].'
            )
        if isinstance(choice, dict):
            raise ConfigError(f"{what}: {key} = {value!r}: a value can't be a section. Write its keys with dots.")
    texts = [str(choice) for choice in value]
    if len(set(texts)) < len(texts):
        raise ConfigError(f"{what}: {key} = {value!r} has a value twice.")
    return value


def _cases(path: Path, content: Mapping[str, Any], fixed: Mapping[str, Any]) -> list[Case]:
    """The named cases, or one without a name, each with the grid."""
    what = f"{path}: grid"
    grid = {key: _values(key, value, what) for key, value in _settings(content.get("grid"), what).items()}
    named = _mapping(content.get("cases"), f"{path}: cases")
    if not grid and not named:
        raise ConfigError(
            f"{path}: nothing varies. Give a grid, such as grid: {{training.learning_rate: [0.1]}}, or cases."
        )
    cases = []
    for name, case in (named or {"": {}}).items():
        what = f"{path}: cases: {name}"
        settings = _settings(case, what)
        own = {key: _values(key, value, what) for key, value in settings.items() if isinstance(value, list)}
        # A setting that is a list must be written as a list in a list.
        settings |= {key: value[0] for key, value in own.items() if len(value) == 1 and isinstance(value[0], list)}
        own = {key: value for key, value in own.items() if settings[key] is value}
        constant = {key: value for key, value in settings.items() if key not in own}
        _set_once(what, "the case and the grid", settings, grid)
        _set_once(what, "fixed and what varies", fixed, settings | grid)
        cases.append(Case(name, constant, own | grid))
    lower = [name.casefold() for name in named]
    if len(set(lower)) < len(lower):
        raise ConfigError(f"{path}: two cases differ only in capitals, which some file systems ignore.")
    return cases


def checked_baseline(path: Path, value: Any, cases: list[Case]) -> str:
    """The name of the baseline, or empty without one.

    Raises:
        ConfigError: if no case has this name, or it doesn't have one point for each point of the other cases.
    """
    if value is None:
        return ""
    names = [case.name for case in cases if case.name]
    baseline = next((case for case in cases if case.name and case.name == value), None)
    if baseline is None:
        hint = nearest_or_all(str(value), names) if names else "There are no cases."
        raise ConfigError(f"{path}: baseline = {value!r} must be the name of a case. {hint}")
    for key, values in baseline.varied.items():
        if len(values) > 1 and any(case.varied.get(key) != values for case in cases):
            raise ConfigError(
                f"{path}: baseline: {key} varies in {value!r}, but not in the same way in all other cases, so it isn't "
                "clear which of its points to compare with. Give it one value there."
            )
    return baseline.name


def _set_once(what: str, where: str, first: Iterable[str], second: Iterable[str]) -> None:
    for key in sorted(set(first) & set(second)):
        raise ConfigError(f"{what}: {key} is set twice, in {where}. Keep one of them.")


def _names(path: Path, key: str, value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else value or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{path}: {key} = {value!r} must be a name, or a list of names.")
    return names


def _plots(path: Path, value: Any) -> Plots:
    content = _mapping(value, f"{path}: plots")
    for key in content:
        if key not in ("heatmaps", "lines"):
            raise ConfigError(f"{path}: plots: unknown key {key!r}. {nearest_or_all(key, ('heatmaps', 'lines'))}")
    pairs = content.get("heatmaps")
    if not isinstance(pairs, list | None) or any(not isinstance(p, list) or len(set(p)) != 2 for p in pairs or []):
        raise ConfigError(f"{path}: plots: heatmaps = {pairs!r} must be a list of pairs, such as [[key, other]].")
    lines = None if content.get("lines") is None else _names(path, "plots: lines", content["lines"])
    return Plots(None if pairs is None else [(str(down), str(across)) for down, across in pairs], lines)


def _check_names(study: Study, grouped: bool) -> None:
    """Keys named in the file must be among those that vary."""
    known = [*study.keys, *([CASE] if study.cases[0].name else [])]
    named = [(key, "plots") for pair in study.plots.heatmaps or [] for key in pair]
    named += [(key, "plots") for key in study.plots.lines or []]
    if grouped:
        named.append((study.group_by, "group"))
    elif study.best_of and CASE not in known:
        raise ConfigError(f"{study.path}: best_of needs cases, or group: one of {', '.join(known)}.")
    for key, where in named:
        if key not in known or (where == "plots" and key == CASE):
            raise ConfigError(
                f"{study.path}: {where}: {key!r} doesn't vary in this study. {nearest_or_all(key, known)}"
            )
