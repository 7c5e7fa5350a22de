"""The recipe of a GAN run: typed, each value checked where it is given."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Literal

from cs_gan.training.sections import CodeConfig, LoopConfig, RunConfig, names_of, require


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
class GanTrainingConfig(LoopConfig):
    """How the two networks are trained; a step is one update of the generator.

    Args:
        generator_batch_size: per process; null is the critic's, ``batch_size``.
        n_critic: critic updates per generator update.
        gradient_penalty: its weight; it stays in float32 under mixed precision.
        learning_rate: of Adam, for both networks.
        betas: of Adam.
        decay: of the learning rate: constant, or linear towards 0 over training.
        ema_decay: of the averaged generator.
    """

    generator_batch_size: int | None = None
    n_critic: int = 5
    gradient_penalty: float = 10.0
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.9)
    decay: Literal["constant", "linear"] = "constant"
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n_critic >= 1, "training.n_critic", self.n_critic, "at least 1")
        require(self.gradient_penalty >= 0, "training.gradient_penalty", self.gradient_penalty, "0 or more")
        require(self.learning_rate > 0, "training.learning_rate", self.learning_rate, "above 0")
        require(0 <= self.ema_decay < 1, "training.ema_decay", self.ema_decay, "in [0, 1)")
        require(all(0 <= beta < 1 for beta in self.betas), "training.betas", self.betas, "in [0, 1)")
        value = self.generator_batch_size
        require(value is None or value > 0, "training.generator_batch_size", value, "above 0, or null")


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
        self.blocks = names_of(self.blocks)
        for key in ("weight", "weight_end"):
            value = getattr(self, key)
            require(value is None or value >= 0, f"coded.*.{key}", value, "0 or more")


@dataclass
class CodedCriticConfig(CodedBlocksConfig):
    """Coded blocks of the critic.

    Args:
        blocks, weight, weight_end: as for the generator.
        observe: the scores during which they do: real, fake or both.
    """

    observe: Literal["real", "fake", "both"] = "real"


@dataclass
class CodedConfig(CodeConfig):
    """Coded-smoothing in generator and critic.

    Args:
        generator, critic: blocks and weight of each.
    """

    generator: CodedBlocksConfig = field(default_factory=CodedBlocksConfig)
    critic: CodedCriticConfig = field(default_factory=CodedCriticConfig)


@dataclass
class MetricsConfig:
    """How the averaged generator is scored.

    Args:
        extractor: inception (FID, IS), efficientnet_lite0, digits, dinov2, or none.
        num_samples: generated images per evaluation during training, for the curve.
        final_samples: generated images for the final and the best generator at the end; null is num_samples.
        reference: the split of the real images to score against, always in full: data.limit doesn't cut it.
        num_reference: how many of those, a fixed random choice; null is all of them.
        weights: file of the extractor's weights; null looks where torch-fidelity keeps them.
        batch_size: images per forward of the extractor.
    """

    extractor: str = "digits"
    num_samples: int = 2000
    final_samples: int | None = None
    reference: Literal["train", "test", "all"] = "train"
    num_reference: int | None = None
    weights: str | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        require(self.num_samples >= 4, "metrics.num_samples", self.num_samples, "at least 4")
        value = self.final_samples
        require(value is None or value >= 4, "metrics.final_samples", value, "at least 4, or null")
        if self.weights:
            self.weights = os.path.expanduser(self.weights)


@dataclass
class GanConfig(RunConfig):
    """A whole recipe.

    Args:
        seed, output_dir, resume, dry_run, data, tracking: as in ``RunConfig``.
        model: which networks.
        training: how they are trained.
        coded: where they are coded.
        metrics: how the generator is scored.
    """

    training: GanTrainingConfig = field(default_factory=GanTrainingConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    coded: CodedConfig = field(default_factory=CodedConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    @property
    def scheduled(self) -> bool:
        """Whether a step depends on how many there will be."""
        coded = self.coded
        parts = [part for part in (coded.generator, coded.critic) if part.blocks]
        changing = coded.ratio_start != coded.ratio_end or any(part.weight_end is not None for part in parts)
        return self.training.decay != "constant" or (bool(parts) and changing)
