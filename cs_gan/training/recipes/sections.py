"""The sections that every recipe has."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cs_gan.training.recipes.keys import above_0, at_least, check, checked, names_of, require


@dataclass
class DataConfig:
    """Which images.

    Args:
        name: digits, cifar10, cifar100, mnist, fashion_mnist, svhn, stl10, tiny_imagenet, celeba, folder (any folder or
            zip of images, Parquet, npz or WebDataset), or hf:<owner>/<name> of the Hugging Face Hub.
        root: folder, zip or packed file of the images; null if the data set is downloaded or part of a package.
        image_size: width and height in pixels; null keeps the data set's.
        channels: 1 (grey) or 3 (RGB); null keeps the data set's.
        flip: mirror each image with probability 1/2.
        dequantize: add noise below one grey level, U(0, 1/128) on [-1, 1].
        limit: number of training images to use.
        limit_seed: seed that draws them, with equal numbers per class if there are labels. A smaller set is part of a
            larger one. null takes images at equal distances in the data set. It does not depend on the run's seed, so
            that runs use the same images.
        workers: threads that prepare batches ahead; 0 prepares each when it is needed. The batches are the same.
        device: where the decoded images are kept. cpu is main memory (or a mapped file). auto is the GPU if there is
            one and they need at most a quarter of its free memory; then batches are made there. They are the same.
    """

    name: str = "digits"
    root: str | None = None
    image_size: int | None = None
    channels: int | None = None
    flip: bool = False
    dequantize: bool = True
    limit: int | None = None
    limit_seed: int | None = checked(None, lambda seed: 0 <= seed < 2**63, "0 or more, below 2^63, or null")
    workers: int = at_least(0, 0)
    device: Literal["auto", "cpu"] = "auto"


@dataclass
class ModelConfig:
    """The network, or the pair of networks: a name, and settings that differ from its defaults."""

    name: str = ""
    width: int | None = None

    def arguments(self, **shape: int) -> dict[str, Any]:
        """The keyword arguments that build it for images of this shape."""
        settings = {key: value for key, value in asdict(self).items() if value is not None}
        return {"name": self.name, **shape, **settings}


@dataclass
class LoopConfig:
    """Settings of every training loop.

    Args:
        steps: number of updates (of the generator, if there are two networks).
        schedule_steps: number of steps over which schedules run; afterwards they stay at their end. null is all steps.
        batch_size: images per process and update.
        mixed_precision: no or bf16; null asks ``accelerate launch``. fp16 is refused: second derivatives overflow.
        tf32: let CUDA round the inputs of float32 convolutions to 10 bits of mantissa, for speed. This includes the
            gradient penalty. Everything else in float32 is not affected.
        cuda_graph: auto runs a whole step as one CUDA graph if possible (a GPU, one process); off never does. The
            results are the same.
        deterministic: let CUDA use only kernels that give the same bits every time. Exact resume needs this.
        checkpoint_every, sample_every, evaluate_every: numbers of steps; 0 is only at the end. Samples and scores are
            also made before the first step. A checkpoint is also written before each evaluation.
        log_every: number of steps between lines of log.jsonl.
        keep_checkpoints: number of newest checkpoints to keep.
        max_minutes: stop after this time, with a checkpoint; null is never.
    """

    steps: int = at_least(1, 100_000)
    schedule_steps: int | None = at_least(1, None)
    batch_size: int = at_least(1, 64)
    mixed_precision: str | None = checked(
        None,
        lambda precision: precision in ("no", "bf16"),
        "'no', 'bf16' or null: in fp16 the second derivatives of a gradient penalty overflow",
    )
    tf32: bool = True
    cuda_graph: Literal["auto", "off"] = "auto"
    deterministic: bool = True
    checkpoint_every: int = at_least(0, 1000)
    sample_every: int = at_least(0, 500)
    evaluate_every: int = at_least(0, 1000)
    log_every: int = at_least(1, 50)
    keep_checkpoints: int = at_least(1, 2)
    max_minutes: float | None = above_0(None)

    def __post_init__(self) -> None:
        # With a learning rate that decays, it would be 0 before the last step.
        held, decay = self.schedule_steps, getattr(self, "decay", "constant")
        expected = f"null where training.decay is {decay}: the learning rate would be 0 after them"
        require(held is None or decay == "constant", "training.schedule_steps", held, expected)

    @property
    def horizon(self) -> int:
        """The step at which schedules reach their end."""
        return self.schedule_steps or self.steps


@dataclass
class CodeConfig:
    """The code of the coded blocks.

    Args:
        ratio_start, ratio_end: N/K at the first and at the last step; it changes linearly.
        levels: number of values that N/K takes, including both ends; null changes it at every step.
        multiple: N is rounded to a multiple of it, for blocks that need a batch that can be divided.
        every: code only every m-th step, with m times the weight.
        nodes, spline, decoder_kind, smoothing: see ``SplineCode``.
        batch_norm, share_dropout: see ``CodedSmoothing``.
        discrepancy: squared (the mean squared error), scale_free (divided by the outputs' variance; at a fixed weight
            it can make them constant), or shrink_proof (with the gradient of the variance; shrinking does not lower
            it).
        stop_gradient: none, or AN EXPERIMENT: the side of the discrepancy without gradient, outputs or decoded. The
            outputs of a network may grow without limit if they are only a target.
    """

    ratio_start: float = 1.0
    ratio_end: float = 1.5
    levels: int | None = at_least(2, None)
    multiple: int = at_least(1, 1)
    every: int = 1
    nodes: str = "chebyshev"
    spline: str = "natural"
    decoder_kind: str = "spline"
    smoothing: float = 1e-4
    batch_norm: str = "keep"
    share_dropout: bool = False
    discrepancy: Literal["squared", "scale_free", "shrink_proof"] = "squared"
    stop_gradient: Literal["none", "outputs", "decoded"] = "none"

    def __post_init__(self) -> None:
        free = self.stop_gradient == "none" or self.discrepancy == "squared"
        require(free, "coded.discrepancy", self.discrepancy, "squared where coded.stop_gradient is not none")

    @property
    def warning(self) -> str:
        """A line about experimental settings for the start of a run; empty if there are none."""
        if self.stop_gradient == "none":
            return ""
        return f"experiment: no gradient through the {self.stop_gradient} side of the coded penalty (stop_gradient)"


SHARE = 0.03
"""The share of the gradient at which the coded penalty is held unless a recipe says otherwise."""


@dataclass
class CodedBlocksConfig:
    """Coded blocks of one network.

    Args:
        blocks: names or patterns of blocks (a list, or names separated by commas). [] is plain training; "" in a list
            is the whole network.
        weight: weight of the penalty; null holds a share of the gradient instead.
        weight_end: change the weight linearly to this value over training; null keeps it.
        share: hold the penalty at this share of the gradient (0.03, the default, is 3 %). Leave it out where a weight
            is given.
    """

    blocks: list[str] | str = field(default_factory=list)
    weight: float | None = at_least(0, None)
    weight_end: float | None = at_least(0, None)
    share: float | None = above_0(None)

    def __post_init__(self) -> None:
        self.blocks = names_of(self.blocks)
        weight = self.weight is not None
        require(
            self.share is None or not (weight or self.weight_end),
            "coded: share",
            self.share,
            "null where a weight is given (--coded.<part>.share=null): a share sets the weight itself",
        )
        require(
            weight or self.weight_end is None,
            "coded: weight_end",
            self.weight_end,
            "null unless weight is given, where it starts",
        )
        if self.blocks and not weight:
            self.share = SHARE if self.share is None else self.share  # so that the saved recipe says it

    @property
    def active_blocks(self) -> list[str] | str:
        """The blocks; none without a weight."""
        return self.blocks if self.weight or self.weight_end or self.share else []

    @property
    def strength(self) -> str:
        """The weight, for a description."""
        return f"weight {self.weight}" if self.share is None else f"held at {self.share} of the gradient"


@dataclass
class TrackingConfig:
    """Trackers that get the log too. It is always written to log.jsonl and metrics.jsonl in the run folder.

    Args:
        trackers: names that Accelerate knows (tensorboard, wandb, trackio, mlflow, ...; a list, or separated by
            commas), or none. TensorBoard's files are in ``<run>/tracking``.
        project: the name of the project in the tracker.
    """

    trackers: list[str] | str = field(default_factory=lambda: ["tensorboard"])
    project: str = "cs_gan"

    def __post_init__(self) -> None:
        self.trackers = [name for name in names_of(self.trackers) if name != "none"]
        safe = re.fullmatch(r"[^/\\]+", self.project) and self.project.strip(".")
        require(bool(safe), "tracking.project", self.project, "a name without slashes: it is a folder in the run's")


@dataclass
class RunConfig:
    """The part of a recipe that every kind of run has.

    Args:
        seed: seed of all randomness, together with step and rank.
        output_dir: the run's folder; null is samples/<name of the recipe>, or samples/<name of the recipe>-<name of the
            folder> for a folder of images.
        resume: auto (resume if the folder has a checkpoint), never, or the path of a checkpoint or of another run. With
            changed keys and another output_dir, a new run starts with its weights.
        extend: train a run longer than planned: hold (``--extend`` for short) keeps schedules at their end, stretch
            spreads them over all steps. Provenance then says that this is not one uninterrupted run.
        overwrite: first delete what an earlier run wrote to the folder (``--overwrite`` for short). Leave it out to
            resume.
        history: notes about extensions and weights of other runs. The run writes this itself.
        dry_run: build everything, run one step, print sizes and times, write nothing (``--dry-run`` for short).
    """

    seed: int = 0
    output_dir: str | None = None
    resume: str = "auto"
    extend: Literal["never", "hold", "stretch"] = "never"
    overwrite: bool = False
    history: list[str] = field(default_factory=list)
    dry_run: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    training: LoopConfig = field(default_factory=LoopConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        if self.output_dir is not None:
            self.output_dir = os.path.expanduser(self.output_dir)
        self.resume = os.path.expanduser(self.resume)
        check(self)

    @property
    def scheduled(self) -> bool:
        """Whether a step depends on the total number of steps."""
        raise NotImplementedError
