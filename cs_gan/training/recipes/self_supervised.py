"""The recipe of a self-supervised run. Values are checked when it is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cs_gan.training.recipes.classifier import ClassifierModelConfig, ClassifierTrainingConfig, LabelledDataConfig
from cs_gan.training.recipes.gan import CodedBlocksConfig
from cs_gan.training.recipes.sections import CodeConfig, RunConfig, require


@dataclass
class SslDataConfig(LabelledDataConfig):
    """Images with labels. Only the scores use the labels, training does not.

    Args:
        name, root, image_size, channels, holdout, limit, evaluate_on, workers, device: as for a classifier.
        flip, crop, dequantize: off; ``views`` has the augmentation.
    """

    flip: bool = False
    crop: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("flip", "crop", "dequantize"):
            require(not getattr(self, key), f"data.{key}", getattr(self, key), "off: views.* says how views are drawn")


@dataclass
class EncoderConfig(ClassifierModelConfig):
    """The network: a classifier without its last layer, and a projector.

    Args:
        name, width, dropout: the classifier, as for ``train_classifier.py``.
        projector_layers, projector_width, projector_dim: the projector, see ``models.build_encoder``.
    """

    name: str = "preact_resnet18"
    projector_layers: int = 2
    projector_width: int = 512
    projector_dim: int = 128

    def __post_init__(self) -> None:
        for key in ("projector_layers", "projector_width", "projector_dim"):
            require(getattr(self, key) >= 1, f"model.{key}", getattr(self, key), "at least 1")


@dataclass
class ViewsConfig:
    """The two views of an image: the arguments of ``cs_gan.ssl.Views``."""

    crop_scale: float = 0.2
    crop_ratio: float = 4 / 3
    turn: float = 0.0
    flip: bool = True
    jitter: float = 0.5
    grey: float = 0.2
    noise: float = 0.0

    def __post_init__(self) -> None:
        require(0 < self.crop_scale <= 1, "views.crop_scale", self.crop_scale, "in (0, 1]; 1 is no crop")
        require(self.crop_ratio >= 1, "views.crop_ratio", self.crop_ratio, "1 or more")
        require(0 <= self.turn <= 180, "views.turn", self.turn, "0 to 180 degrees")
        require(0 <= self.jitter <= 1.25, "views.jitter", self.jitter, "0 to 1.25, where brightness can fall to 0")
        require(0 <= self.grey <= 1, "views.grey", self.grey, "a share, 0 to 1")
        require(self.noise >= 0, "views.noise", self.noise, "0 or more")


@dataclass
class SslMethodConfig:
    """The loss.

    Args:
        loss: simclr (NT-Xent) or barlow_twins.
        temperature: temperature of NT-Xent.
        off_diagonal: weight of the redundancy term of Barlow Twins.
    """

    loss: Literal["simclr", "barlow_twins"] = "simclr"
    temperature: float = 0.5
    off_diagonal: float = 0.005

    def __post_init__(self) -> None:
        require(self.temperature > 0, "method.temperature", self.temperature, "above 0")
        require(self.off_diagonal >= 0, "method.off_diagonal", self.off_diagonal, "0 or more")


@dataclass
class SslCodedConfig(CodedBlocksConfig, CodeConfig):
    """Coded-smoothing of encoder or projector: loss + weight penalty. Both views are coded as one batch.

    Args:
        blocks: names or patterns such as ``encoder``, ``encoder.blocks.1`` or ``projector``. [] is plain training; ""
            in a list is the whole network.
        weight, weight_end: weight of the penalty, as in a GAN.
    """

    def __post_init__(self) -> None:
        CodedBlocksConfig.__post_init__(self)
        CodeConfig.__post_init__(self)


@dataclass
class FeatureScoresConfig:
    """Scores of frozen features.

    Args:
        labels: number of training images whose labels the scores use, with equal numbers per class and the same images
            for every seed; null is all.
        k: number of nearest neighbours that vote; all images if there are fewer.
        knn_temperature: temperature of their weights.
        probe_decay: weight decay of the linear probe.
        batch_size: images per forward pass.
    """

    labels: int | None = None
    k: int = 200
    knn_temperature: float = 0.07
    probe_decay: float = 1e-3
    batch_size: int = 256

    def __post_init__(self) -> None:
        require(self.labels is None or self.labels >= 2, "metrics.labels", self.labels, "at least 2, or null")
        for key in ("k", "batch_size"):
            require(getattr(self, key) >= 1, f"metrics.{key}", getattr(self, key), "at least 1")
        require(self.knn_temperature > 0, "metrics.knn_temperature", self.knn_temperature, "above 0")
        require(self.probe_decay >= 0, "metrics.probe_decay", self.probe_decay, "0 or more")


@dataclass
class SslConfig(RunConfig):
    """A whole recipe.

    Args:
        seed, output_dir, resume, extend, history, dry_run, tracking: as in ``RunConfig``.
        data: the images.
        model: the network.
        training: its training, as for a classifier.
        views: the augmentation.
        method: the loss.
        coded: the coded blocks.
        metrics: the scores.
    """

    data: SslDataConfig = field(default_factory=SslDataConfig)
    training: ClassifierTrainingConfig = field(default_factory=ClassifierTrainingConfig)
    model: EncoderConfig = field(default_factory=EncoderConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    method: SslMethodConfig = field(default_factory=SslMethodConfig)
    coded: SslCodedConfig = field(default_factory=SslCodedConfig)
    metrics: FeatureScoresConfig = field(default_factory=FeatureScoresConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.training.batch_size
        require(size >= 2, "training.batch_size", size, "at least 2: an image is told from the others of its batch")

    @property
    def scheduled(self) -> bool:
        """Whether a step depends on the total number of steps."""
        coded, training = self.coded, self.training
        changing = coded.ratio_start != coded.ratio_end or coded.weight_end is not None
        return training.decay != "constant" or training.warmup > 0 or (bool(coded.blocks) and changing)
