"""The recipe of a self-supervised run. Values are checked when it is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cs_gan.training.recipes.keys import above_0, at_least, checked, require
from cs_gan.training.recipes.sections import CodeConfig, CodedBlocksConfig
from tasks.sections import LabelledDataConfig, NetworkConfig, OneNetworkConfig


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
class EncoderConfig(NetworkConfig):
    """The network: a classifier without its last layer, and a projector.

    Args:
        name, width, dropout: the classifier, as for ``train_classifier.py``.
        projector_layers, projector_width, projector_dim: the projector, see ``models.build_encoder``.
    """

    name: str = "preact_resnet18"
    projector_layers: int = at_least(1, 2)
    projector_width: int = at_least(1, 512)
    projector_dim: int = at_least(1, 128)


@dataclass
class ViewsConfig:
    """The two views of an image: the arguments of ``cs_gan.ssl.Views``."""

    crop_scale: float = checked(0.2, lambda scale: 0 < scale <= 1, "in (0, 1]; 1 is no crop")
    crop_ratio: float = at_least(1, 4 / 3)
    turn: float = checked(0.0, lambda turn: 0 <= turn <= 180, "0 to 180 degrees")
    flip: bool = True
    jitter: float = checked(0.5, lambda jitter: 0 <= jitter <= 1.25, "0 to 1.25, where brightness can fall to 0")
    grey: float = checked(0.2, lambda grey: 0 <= grey <= 1, "a share, 0 to 1")
    noise: float = at_least(0, 0.0)


@dataclass
class SslMethodConfig:
    """The loss.

    Args:
        loss: simclr (NT-Xent) or barlow_twins.
        temperature: temperature of NT-Xent.
        off_diagonal: weight of the redundancy term of Barlow Twins.
    """

    loss: Literal["simclr", "barlow_twins"] = "simclr"
    temperature: float = above_0(0.5)
    off_diagonal: float = at_least(0, 0.005)


@dataclass
class SslCodedConfig(CodedBlocksConfig, CodeConfig):
    """Coded-smoothing of encoder or projector: loss + weight penalty. Both views are coded as one batch.

    Args:
        blocks: names or patterns such as ``encoder``, ``encoder.blocks.1`` or ``projector``. [] is plain training; ""
            in a list is the whole network.
        weight, weight_end, share: weight of the penalty, as in a GAN.
        share_every: number of coded steps between two measurements of a share that is held.
    """

    share_every: int = at_least(1, 10)


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

    labels: int | None = at_least(2, None)
    k: int = at_least(1, 200)
    knn_temperature: float = above_0(0.07)
    probe_decay: float = at_least(0, 1e-3)
    batch_size: int = at_least(1, 256)


@dataclass
class SslConfig(OneNetworkConfig):
    """A whole recipe.

    Args:
        seed, output_dir, resume, extend, overwrite, history, dry_run, tracking: as in ``RunConfig``.
        data: the images.
        model: the network.
        training: its training, as for a classifier.
        views: the augmentation.
        method: the loss.
        coded: the coded blocks.
        metrics: the scores.
    """

    data: SslDataConfig = field(default_factory=SslDataConfig)
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
        coded = self.coded
        changing = coded.ratio_start != coded.ratio_end or coded.weight_end is not None
        return super().scheduled or (bool(coded.blocks) and changing)
