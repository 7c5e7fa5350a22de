"""The sections that every recipe has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from cs_gan.core import CodedSmoothing, Linear
from cs_gan.core.batch import STOP_GRADIENT
from cs_gan.core.schedule import Schedule
from cs_gan.errors import ConfigError


@dataclass
class DataConfig:
    """Which images.

    Args:
        name: digits, cifar10, cifar100, fashion_mnist, tiny_imagenet, celeba or folder (any folder or zip of images).
        root: folder or zip; null where the data set is embedded or downloaded.
        image_size: pixels a side; null takes the data set's own.
        channels: 1 (grey) or 3 (RGB); null takes the data set's own.
        flip: mirror half of the images.
        dequantize: add noise below one grey level, U(0, 1/128) on [-1, 1].
        limit: train on only so many images.
        limit_seed: draws them, as many of each class where there are labels; a smaller choice lies within a larger one.
            null takes them evenly spaced over the data set. Apart from the run's seed, so that runs share the images.
        workers: threads that prepare batches ahead; 0 prepares each when it is due. The batches are the same.
        device: where the decoded images lie. cpu is main memory (or a mapped file); auto is the GPU, if there is one
            and they take at most a quarter of its free memory: then batches are made there. The batches are the same.
    """

    name: str = "digits"
    root: str | None = None
    image_size: int | None = None
    channels: int | None = None
    flip: bool = False
    dequantize: bool = True
    limit: int | None = None
    limit_seed: int | None = None
    workers: int = 0
    device: Literal["auto", "cpu"] = "auto"

    def __post_init__(self) -> None:
        seed = self.limit_seed
        require(seed is None or 0 <= seed < 2**63, "data.limit_seed", seed, "0 or more, below 2^63, or null")
        require(self.workers >= 0, "data.workers", self.workers, "0 or more")


@dataclass
class LoopConfig:
    """What every training loop has.

    Args:
        steps: updates (of the generator, where there are two networks).
        schedule_steps: steps that schedules take; after them they stay at their end. null is all steps.
        batch_size: per process.
        mixed_precision: no or bf16; null asks ``accelerate launch``. fp16 is refused: second derivatives overflow.
        tf32: let CUDA round the inputs of float32 convolutions to 10 bits of mantissa, the gradient penalty's too, for
            speed. Without it they are true float32. All else in float32 is so anyway.
        cuda_graph: auto runs a whole step as one CUDA graph where that can be (a GPU, one process); off never does. The
            results are the same.
        deterministic: let CUDA take only kernels that give the same bits every time, which exact resume needs.
        checkpoint_every, sample_every, evaluate_every: in steps; 0 is only at the end. Samples and scores are also
            made before the first step; a checkpoint is also written before each evaluation.
        log_every: steps between lines of log.jsonl.
        keep_checkpoints: how many of the last ones stay.
        max_minutes: end cleanly, with a checkpoint, after so long; null is never.
    """

    steps: int = 100_000
    schedule_steps: int | None = None
    batch_size: int = 64
    mixed_precision: str | None = None
    tf32: bool = True
    cuda_graph: Literal["auto", "off"] = "auto"
    deterministic: bool = True
    checkpoint_every: int = 1000
    sample_every: int = 500
    evaluate_every: int = 1000
    log_every: int = 50
    keep_checkpoints: int = 2
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "log_every", "keep_checkpoints"):
            require(getattr(self, key) >= 1, f"training.{key}", getattr(self, key), "at least 1")
        for key in ("checkpoint_every", "sample_every", "evaluate_every"):
            require(getattr(self, key) >= 0, f"training.{key}", getattr(self, key), "0 or more")
        scheduled = self.schedule_steps
        require(scheduled is None or scheduled >= 1, "training.schedule_steps", scheduled, "at least 1, or null")
        precision = self.mixed_precision
        require(
            precision in (None, "no", "bf16"),
            "training.mixed_precision",
            precision,
            "'no', 'bf16' or null: in fp16 the second derivatives of a gradient penalty overflow",
        )
        require(self.max_minutes is None or self.max_minutes > 0, "training.max_minutes", self.max_minutes, "above 0")

    @property
    def horizon(self) -> int:
        """The step at which schedules reach their end."""
        return self.schedule_steps or self.steps

    def _require_rate(self, decay: str) -> None:
        """The learning rate must not have come to 0 while steps are left."""
        held = self.schedule_steps
        expected = f"null where training.decay is {decay}: the learning rate would be 0 after them"
        require(held is None or decay == "constant", "training.schedule_steps", held, expected)


@dataclass
class CodeConfig:
    """The code, wherever blocks are coded.

    Args:
        ratio_start, ratio_end: N/K at the first step and towards the end, a straight line between.
        levels: how many values N/K takes on its way, both ends among them; null is a straight line.
        every: observe on every m-th step, with m times the weight.
        nodes, spline, decoder_kind, smoothing: see ``SplineCode``.
        batch_norm, share_dropout: see ``CodedSmoothing``.
        stop_gradient: none, or AN EXPERIMENT: the side of the discrepancy that has no gradient, outputs or decoded. A
            network whose outputs are held as a target may grow without end.
    """

    ratio_start: float = 1.0
    ratio_end: float = 1.5
    levels: int | None = None
    every: int = 1
    nodes: str = "chebyshev"
    spline: str = "natural"
    decoder_kind: str = "spline"
    smoothing: float = 1e-4
    batch_norm: str = "keep"
    share_dropout: bool = False
    stop_gradient: Literal["none", "outputs", "decoded"] = "none"

    def __post_init__(self) -> None:
        require(self.levels is None or self.levels >= 2, "coded.levels", self.levels, "at least 2, or null")

    def attach(
        self,
        network: nn.Module,
        blocks: Sequence[str],
        *,
        weight: Schedule = 1.0,
        seed: int,
        steps: int,
        batch_size: int,
    ) -> CodedSmoothing:
        """Code blocks of a network as the recipe says.

        Args:
            blocks: names or patterns.
            weight: of the penalty, a number or a schedule.
            seed: of random nodes.
            steps: updates of the whole training, over which schedules run.
            batch_size: samples that are coded together, K.

        Raises:
            BlockError: for blocks that the network lacks or that can't be coded.
            CodeError: for a code that can't be built: now, not hours from here.
        """
        ratio = Linear(self.ratio_start, self.ratio_end, levels=self.levels)
        names = ("every", "nodes", "spline", "decoder_kind", "smoothing", "batch_norm", "share_dropout")
        given = {name: getattr(self, name) for name in names} | {"discrepancy": STOP_GRADIENT[self.stop_gradient]}
        smoothing = CodedSmoothing(network, blocks, ratio, weight=weight, seed=seed, **given)
        for step in (0, steps):
            smoothing.set_step(step, steps)
            smoothing.code(batch_size)
        return smoothing

    @property
    def warning(self) -> str:
        """What a run says at its start of settings that are experiments; nothing where there are none."""
        if self.stop_gradient == "none":
            return ""
        return f"experiment: no gradient through the {self.stop_gradient} side of the coded penalty (stop_gradient)"


@dataclass
class TrackingConfig:
    """Where else the log goes; it always goes to log.jsonl and metrics.jsonl in the run folder.

    Args:
        trackers: names that Accelerate knows (tensorboard, wandb, trackio, mlflow, ...; a list, or separated by
            commas), or none. TensorBoard's files lie in ``<run>/tracking``.
        project: the project's name there.
    """

    trackers: list[str] | str = field(default_factory=lambda: ["tensorboard"])
    project: str = "cs_gan"

    def __post_init__(self) -> None:
        self.trackers = [name for name in names_of(self.trackers) if name != "none"]


@dataclass
class RunConfig:
    """A whole recipe, as far as every kind of run has it.

    Args:
        seed: all randomness derives from it, the step and the rank.
        output_dir: the run's folder; null is samples/<name of the recipe>.
        resume: auto (go on if the folder holds a checkpoint), never, or the path of a checkpoint or another run. With
            changed keys and another output_dir, its weights begin a new run.
        extend: train longer than a run was to, finished or not: hold (``--extend`` for short) keeps schedules at their
            end, stretch spreads them over all steps. The run is marked as not one undisturbed run.
        history: what marks a run as such; written by the run itself.
        dry_run: build everything, run one step, print sizes and times, write nothing (``--dry-run`` for short).
    """

    seed: int = 0
    output_dir: str | None = None
    resume: str = "auto"
    extend: Literal["never", "hold", "stretch"] = "never"
    history: list[str] = field(default_factory=list)
    dry_run: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    training: LoopConfig = field(default_factory=LoopConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        if self.output_dir is not None:
            self.output_dir = os.path.expanduser(self.output_dir)
        self.resume = os.path.expanduser(self.resume)

    @property
    def scheduled(self) -> bool:
        """Whether a step depends on how many there will be; subclasses say."""
        raise NotImplementedError


def require(holds: bool, key: str, value: Any, expected: str) -> None:
    """Refuse a value, naming its key.

    Raises:
        ConfigError: unless ``holds``.
    """
    if not holds:
        raise ConfigError(f"{key} = {value!r} must be {expected}.")


def names_of(given: list[str] | str) -> list[str]:
    """A list, or names separated by commas, as a list."""
    if isinstance(given, str):
        return [name for part in given.split(",") if (name := part.strip())]
    return given
