"""The recipe of a GAN run. Values are checked when it is built."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal

from cs_gan.errors import ConfigError
from cs_gan.training.recipes.keys import above_0, at_least, below_1, checked, names_of, require
from cs_gan.training.recipes.sections import CodeConfig, CodedBlocksConfig, LoopConfig, ModelConfig, RunConfig

# Not Any: for it jsonargparse would import and build what a {"class_path": ...} in a recipe names.
Value = None | bool | int | float | str
Argument = Value | list[Value]

POLICY = ("color", "translation", "cutout")


@dataclass
class GanModelConfig(ModelConfig):
    """The pair of networks: a name of ``models.GAN_NAMES`` with its settings, or two classes of your own.

    Args:
        name: paper32, paper64, mimicry32, dcgan16, dcgan32, dcgan64, or resnet (the size of the data: 16, 32, 64 or
            128 pixels). With ``generator`` it is not used.
        width: base number of channels of both networks; null is the pair's own. With ``generator`` it is not used.
        latent_dim: width of the latents; null is 128, or what your generator has as ``latent_dim``.
        conditional: networks get the classes of the images too, as second argument: (B,) int64. Of the names, resnet
            can do so.
        generator, critic: your own, as package.module:Class. The current folder can be imported from. The generator
            takes (B, latent_dim) and gives images (B, C, H, W), the critic takes images and gives scores (B,).
        options: keyword arguments of both classes. Those under ``generator`` or ``critic`` are for this one alone.
    """

    name: str = "dcgan16"
    latent_dim: int | None = above_0(None)
    conditional: bool = False
    generator: str | None = None
    critic: str | None = None
    options: dict[str, Argument | dict[str, Argument]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for given, missing in (("generator", "critic"), ("critic", "generator")):
            if getattr(self, given) and not getattr(self, missing):
                raise ConfigError(
                    f"model.{given} = {getattr(self, given)!r} without model.{missing}: give both networks, such as "
                    "--model.generator=my_gan:Generator --model.critic=my_gan:Critic."
                )
        if self.generator:
            self.name, self.width = self.generator, None
        elif self.options:
            raise ConfigError(
                "model.options are for model.generator and model.critic. The networks that come with cs_gan have "
                "model.width and model.latent_dim."
            )

    def arguments(self, **shape: int) -> dict[str, Any]:
        """The keyword arguments of ``models.build_gan`` for images of this shape, without the classes."""
        chosen = {"width": self.width, "latent_dim": self.latent_dim}
        return {"name": self.name, **shape, **{key: value for key, value in chosen.items() if value is not None}}


@dataclass
class GanTrainingConfig(LoopConfig):
    """Training of the two networks. A step is one update of the generator.

    Args:
        loss: wasserstein, hinge, non-saturating or relativistic (as in R3GAN).
        generator_batch_size: images per process in the generator's update; null is ``batch_size``.
        n_critic: number of critic updates per generator update.
        gradient_penalty: weight of the gradient penalty; 0 is off. It is computed in float32 under mixed precision.
        learning_rate: Adam's learning rate.
        critic_learning_rate: another one for the critic (TTUR); null is ``learning_rate``.
        betas: Adam's betas.
        decay: schedule of the learning rate: constant, or linear to 0.
        ema_decay: decay of the averaged generator.
    """

    loss: Literal["wasserstein", "hinge", "non-saturating", "relativistic"] = "wasserstein"
    generator_batch_size: int | None = above_0(None)
    n_critic: int = at_least(1, 5)
    gradient_penalty: float = at_least(0, 10.0)
    learning_rate: float = above_0(2e-4)
    critic_learning_rate: float | None = above_0(None)
    betas: tuple[float, float] = checked((0.0, 0.9), lambda betas: all(0 <= beta < 1 for beta in betas), "in [0, 1)")
    decay: Literal["constant", "linear"] = "constant"
    ema_decay: float = below_1(0.999)


@dataclass
class ConsistencyConfig:
    """Consistency: the critic should give an image and an augmented view of it (flipped, moved) the same score.

    Args:
        weight: weight for real images (CR); 10 is usual.
        fake_weight: weight for fake images (both together are bCR); 10 is usual.
    """

    weight: float = at_least(0, 0.0)
    fake_weight: float = at_least(0, 0.0)


@dataclass
class LeCamConfig:
    """LeCam: scores of real images stay near the moving average of fake images' scores, and the other way round.

    Args:
        weight: weight of the penalty; the paper uses 0.01 to 0.3.
        decay: decay of the moving averages.
    """

    weight: float = at_least(0, 0.0)
    decay: float = below_1(0.99)


@dataclass
class FeatureNormConfig:
    """The mean square of a block's outputs on real images. It is the control for coding that block.

    Args:
        weight: weight of the penalty.
        share: hold the penalty at this share of the gradient, as ``coded.critic.share`` does; null keeps the weight.
        block: name of the critic's block.
    """

    weight: float = at_least(0, 0.0)
    share: float | None = above_0(None)
    block: str = "blocks.1"


@dataclass
class CriticConfig:
    """More regularisers of the critic. All are off by default, and all can be combined.

    Args:
        r1, r2: gamma of the zero-centred gradient penalties at real and at fake images (gamma / 2 times the mean
            squared slope).
        spectral_norm: divide each weight by its spectral norm.
        mixup: mix real images with their neighbours in the batch, with shares from Beta(alpha, alpha); this is alpha.
        consistency, lecam, feature_norm: sections.
    """

    r1: float = at_least(0, 0.0)
    r2: float = at_least(0, 0.0)
    spectral_norm: bool = False
    mixup: float = at_least(0, 0.0)
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    lecam: LeCamConfig = field(default_factory=LeCamConfig)
    feature_norm: FeatureNormConfig = field(default_factory=FeatureNormConfig)


@dataclass
class AugmentationConfig:
    """DiffAugment: augment all images for the critic, real and fake, with gradients to the generator.

    Args:
        policy: color, translation, cutout (a list, or names separated by commas); none is off.
    """

    policy: list[str] | str = field(default_factory=list)

    def __post_init__(self) -> None:
        self.policy = [name for name in names_of(self.policy) if name != "none"]
        for name in self.policy:
            require(name in POLICY, "augmentation.policy", name, f"made of {', '.join(POLICY)}")


@dataclass
class CodedCriticConfig(CodedBlocksConfig):
    """Coded blocks of the critic.

    Args:
        blocks, weight, weight_end, share: as for the generator.
        observe: the images on which blocks are coded: real, fake or both.
    """

    observe: Literal["real", "fake", "both"] = "real"


@dataclass
class CodedConfig(CodeConfig):
    """Coded-smoothing in generator and critic.

    Args:
        generator, critic: blocks and weight of each.
        share_every: number of coded steps between two measurements of a share that is held.
    """

    share_every: int = at_least(1, 10)
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
        num_reference: how many of those, a fixed random choice; null is all of them. If there are fewer, all are used,
            num_samples and final_samples are lowered to their number, and a note says so.
        weights: file of the extractor's weights; null looks where torch-fidelity keeps them.
        batch_size: images per forward of the extractor.
    """

    extractor: str = "digits"
    num_samples: int = at_least(4, 2000)
    final_samples: int | None = at_least(4, None)
    reference: Literal["train", "test", "all"] = "train"
    num_reference: int | None = None
    weights: str | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.weights:
            self.weights = os.path.expanduser(self.weights)


@dataclass
class GanConfig(RunConfig):
    """A whole recipe.

    Args:
        seed, output_dir, resume, extend, overwrite, history, dry_run, data, tracking: as in ``RunConfig``.
        model: the networks.
        training: their training.
        critic: more regularisers of the critic.
        augmentation: augmentation of the critic's images.
        coded: the coded blocks.
        metrics: the scores.

    Raises:
        ConfigError: for settings that don't go together.
    """

    training: GanTrainingConfig = field(default_factory=GanTrainingConfig)
    model: GanModelConfig = field(default_factory=GanModelConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    coded: CodedConfig = field(default_factory=CodedConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        training, critic = self.training, self.critic
        if training.loss == "relativistic":
            size = training.generator_batch_size
            if critic.lecam.weight:
                raise ConfigError(
                    "critic.lecam.weight with training.loss=relativistic: LeCam holds scores near averages, and the "
                    "relativistic loss leaves the level of the scores open. Set one of them otherwise."
                )
            if size not in (None, training.batch_size):
                raise ConfigError(
                    f"training.generator_batch_size = {size} with training.loss=relativistic: it pairs each fake image "
                    f"with a real one, so it must be training.batch_size = {training.batch_size}, or null."
                )
        if self.model.conditional and critic.mixup:
            raise ConfigError(
                "critic.mixup with model.conditional: a mix of images of two classes has no class. Set one of them "
                "otherwise."
            )
        bounded = training.gradient_penalty or critic.r1 or critic.spectral_norm
        if training.loss == "wasserstein" and not bounded:
            raise ConfigError(
                "training.loss=wasserstein needs a critic whose slope is bounded: set training.gradient_penalty, "
                "critic.r1 or critic.spectral_norm."
            )

    @property
    def scheduled(self) -> bool:
        """Whether a step depends on the total number of steps."""
        coded = self.coded
        parts = [part for part in (coded.generator, coded.critic) if part.blocks]
        changing = coded.ratio_start != coded.ratio_end or any(part.weight_end is not None for part in parts)
        return self.training.decay != "constant" or (bool(parts) and changing)
