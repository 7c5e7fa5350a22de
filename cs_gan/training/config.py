"""The configuration of a GAN run: typed, from YAML and the command line, checked before anything is built."""

from __future__ import annotations

import difflib
import os
import re
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser, Namespace

from cs_gan.errors import ConfigError


@dataclass
class DataConfig:
    """Which images.

    Args:
        name: digits, cifar10, celeba or folder (any folder or zip of images).
        root: folder or zip; null where the data set is embedded or downloaded.
        image_size: pixels a side; null takes the data set's own.
        flip: mirror half of the images.
        dequantize: add noise below one grey level, U(0, 1/128) on [-1, 1].
        limit: use only so many images, evenly spaced over the data set.
    """

    name: str = "digits"
    root: str | None = None
    image_size: int | None = None
    flip: bool = False
    dequantize: bool = True
    limit: int | None = None


@dataclass
class ModelConfig:
    """Which pair of networks: a name of ``models.GAN_NAMES`` and what differs from its defaults."""

    name: str = "dcgan16"
    width: int | None = None
    latent_dim: int | None = None

    def overrides(self) -> dict[str, int]:
        """The keyword arguments of ``models.build_gan`` that are set."""
        return {k: v for k, v in asdict(self).items() if k != "name" and v is not None}


@dataclass
class TrainingConfig:
    """How the two networks are trained.

    Args:
        steps: generator updates.
        batch_size: of the critic, per process.
        generator_batch_size: per process; null is the critic's.
        n_critic: critic updates per generator update.
        gradient_penalty: its weight.
        learning_rate: of Adam, for both networks.
        betas: of Adam.
        decay: of the learning rate: constant, or linear towards 0 over training.
        ema_decay: of the averaged generator.
        mixed_precision: no or bf16; null asks ``accelerate launch``. The gradient penalty stays in float32.
        checkpoint_every, sample_every, evaluate_every: in steps; 0 is only at the end.
        log_every: steps between lines of log.csv.
        keep_checkpoints: how many of the last ones stay.
        max_minutes: end cleanly, with a checkpoint, after so long; null is never.
    """

    steps: int = 100_000
    batch_size: int = 64
    generator_batch_size: int | None = None
    n_critic: int = 5
    gradient_penalty: float = 10.0
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.9)
    decay: Literal["constant", "linear"] = "constant"
    ema_decay: float = 0.999
    mixed_precision: Literal["no", "bf16"] | None = None
    checkpoint_every: int = 1000
    sample_every: int = 500
    evaluate_every: int = 1000
    log_every: int = 50
    keep_checkpoints: int = 2
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "n_critic", "log_every", "keep_checkpoints"):
            _require(getattr(self, key) >= 1, f"training.{key}", getattr(self, key), "at least 1")
        for key in ("checkpoint_every", "sample_every", "evaluate_every", "gradient_penalty"):
            _require(getattr(self, key) >= 0, f"training.{key}", getattr(self, key), "0 or more")
        _require(self.learning_rate > 0, "training.learning_rate", self.learning_rate, "above 0")
        _require(0 <= self.ema_decay < 1, "training.ema_decay", self.ema_decay, "in [0, 1)")
        _require(all(0 <= beta < 1 for beta in self.betas), "training.betas", self.betas, "in [0, 1)")
        for key in ("generator_batch_size", "max_minutes"):
            value = getattr(self, key)
            _require(value is None or value > 0, f"training.{key}", value, "above 0, or null")


@dataclass
class CodedBlocksConfig:
    """Coded blocks of one network.

    Args:
        blocks: names or patterns of blocks (a list, or names separated by commas); none is plain training. In a
            list, "" is the whole network.
        weight: of the penalty.
        weight_end: grow or shrink the weight linearly towards this over training; null keeps it.
    """

    blocks: list[str] | str = field(default_factory=list)
    weight: float = 0.1
    weight_end: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.blocks, str):
            self.blocks = [name for part in self.blocks.split(",") if (name := part.strip())]
        for key in ("weight", "weight_end"):
            value = getattr(self, key)
            _require(value is None or value >= 0, f"coded.*.{key}", value, "0 or more")


@dataclass
class CodedCriticConfig(CodedBlocksConfig):
    """Coded blocks of the critic.

    Args:
        blocks, weight, weight_end: as for the generator.
        observe: the scores during which they do: real, fake or both.
    """

    observe: Literal["real", "fake", "both"] = "real"


@dataclass
class CodedConfig:
    """Coded-smoothing in generator and critic.

    Args:
        generator, critic: blocks and weight of each.
        ratio_start, ratio_end: N/K at the first step and towards the end, a straight line between.
        every: observe on every m-th step, with m times the weight.
        nodes, spline, decoder_kind, smoothing: see ``SplineCode``.
        batch_norm, share_dropout: see ``CodedSmoothing``.
    """

    generator: CodedBlocksConfig = field(default_factory=CodedBlocksConfig)
    critic: CodedCriticConfig = field(default_factory=CodedCriticConfig)
    ratio_start: float = 1.0
    ratio_end: float = 1.5
    every: int = 1
    nodes: str = "chebyshev"
    spline: str = "natural"
    decoder_kind: str = "spline"
    smoothing: float = 1e-4
    batch_norm: str = "keep"
    share_dropout: bool = False

    def options(self) -> dict[str, Any]:
        """The keyword arguments of ``CodedSmoothing`` that both networks share."""
        names = ("every", "nodes", "spline", "decoder_kind", "smoothing", "batch_norm", "share_dropout")
        return {name: getattr(self, name) for name in names}


@dataclass
class MetricsConfig:
    """How the averaged generator is scored.

    Args:
        extractor: inception (FID, IS), efficientnet_lite0, digits, or none.
        num_samples: generated images per evaluation.
        num_reference: real images; null is all of them.
        weights: file of the Inception weights; null looks where torch-fidelity keeps them.
        batch_size: images per forward of the extractor.
    """

    extractor: str = "digits"
    num_samples: int = 2000
    num_reference: int | None = None
    weights: str | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        _require(self.num_samples >= 2, "metrics.num_samples", self.num_samples, "at least 2")


@dataclass
class GanConfig:
    """A whole recipe.

    Args:
        seed: all randomness derives from it, the step and the rank.
        output_dir: the run's folder.
        resume: auto (go on if the folder holds a checkpoint), never, or the path of a checkpoint.
    """

    seed: int = 0
    output_dir: str = "samples/run"
    resume: str = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    coded: CodedConfig = field(default_factory=CodedConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    def __post_init__(self) -> None:
        self.output_dir, self.resume = os.path.expanduser(self.output_dir), os.path.expanduser(self.resume)
        if self.metrics.weights:
            self.metrics.weights = os.path.expanduser(self.metrics.weights)

    @property
    def scheduled(self) -> bool:
        """Whether a step depends on how many there will be."""
        coded = self.coded
        parts = [part for part in (coded.generator, coded.critic) if part.blocks]
        changing = coded.ratio_start != coded.ratio_end or any(part.weight_end is not None for part in parts)
        return self.training.decay != "constant" or (bool(parts) and changing)


def parse_config(arguments: Sequence[str] | None = None) -> GanConfig:
    """The configuration of ``--config <file>`` and ``--key=value`` arguments, later ones winning.

    Raises:
        ConfigError: for an unknown key (names the nearest), a wrong type, an impossible value or a
            missing file.
        SystemExit: after ``--help``.
    """
    parser = ArgumentParser(
        prog="train_gan.py",
        exit_on_error=False,
        allow_abbrev=False,  # --training.step would pass for --training.steps
        description="Train a WGAN-GP with coded blocks.",
    )
    parser.add_argument("--config", action="config", help="a recipe, such as configs/gan/quickstart.yaml")
    parser.add_class_arguments(GanConfig)
    try:
        parsed = parser.parse_args(arguments)
        _require_sections(parsed, GanConfig)
        values = parser.instantiate(parsed)
    except (ArgumentError, yaml.YAMLError) as error:
        raise ConfigError(_explained(str(error))) from None
    return GanConfig(**{key.name: values[key.name] for key in fields(GanConfig)})


def save_config(config: GanConfig, path: Path) -> None:
    """Write the resolved configuration as a recipe that ``--config`` takes."""
    path.write_text(yaml.safe_dump(as_plain(config), sort_keys=False))


def as_plain(config: GanConfig) -> dict[str, Any]:
    """Nested dicts and lists, for YAML and JSON."""
    plain: dict[str, Any] = _plain(asdict(config))
    return plain


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines ``key: old -> new`` for what two nested configurations don't share.

    A key that ``old`` lacks, since it is younger than that run, counts as its default.
    """
    before, after = _flat(old), _flat(new)
    before = {key: value for key, value in _flat(as_plain(GanConfig())).items() if key in after} | before
    return [f"{k}: {before.get(k)} -> {after.get(k)}" for k in sorted(before | after) if before.get(k) != after.get(k)]


def _require(holds: bool, key: str, value: Any, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{key} = {value!r} must be {expected}.")


def _require_sections(values: Any, kind: type, prefix: str = "") -> None:
    """A section that a recipe leaves empty (``training:`` and nothing below it) arrives as None."""
    for section in fields(kind):
        # With postponed annotations a field's type is its name; the factory is the class.
        if is_dataclass(section.default_factory):
            name, value = prefix + section.name, values[section.name]
            _require(isinstance(value, Namespace), name, value, "a section of keys; leave it out for its defaults")
            _require_sections(value, section.default_factory, f"{name}.")


_UNKNOWN_KEY = re.compile(
    r"unrecognized arguments: --(?P<flag>[\w.-]+)"
    r"|Group '(?P<group>[\w.]+)' does not accept option '(?P<option>[\w.]+)'"
    r"|Option '(?P<key>[\w.]+)' is not accepted"
)


def _explained(message: str) -> str:
    """jsonargparse's message on one line, with the nearest valid key where one is unknown."""
    unknown = _UNKNOWN_KEY.search(message)
    if not unknown:
        return re.sub(r"<class '(\w+)'>|typing\.", r"\1", " ".join(message.split()))
    key = ".".join(part for part in unknown.groups() if part)
    valid = list(_flat(asdict(GanConfig())))
    near = difflib.get_close_matches(key, valid, n=2, cutoff=0.6)
    if not near and (names := difflib.get_close_matches(key, [name.split(".")[-1] for name in valid], n=1)):
        near = [name for name in valid if name.split(".")[-1] == names[0]][:3]  # the section was left out
    hint = f"Did you mean {' or '.join(near)}?" if near else "See `python train_gan.py --help` for all keys."
    return f"unknown configuration key {key!r}. {hint}"


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _plain(value: Any) -> Any:
    """Tuples as lists, for YAML and JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
