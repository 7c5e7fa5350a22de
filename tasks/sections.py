"""The sections that the recipes of classifiers and encoders share. Values are checked when they are built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cs_gan.randomness import derive_seed
from cs_gan.training.recipes.keys import above_0, at_least, below_1, require
from cs_gan.training.recipes.sections import DataConfig, LoopConfig, ModelConfig, RunConfig


@dataclass
class LabelledDataConfig(DataConfig):
    """Labelled images.

    Args:
        name: digits, cifar10, cifar100, tiny_imagenet, mnist, fashion_mnist, svhn, stl10, folder (class folders, a zip
            of them, or packed data with labels), or hf:<owner>/<name> of the Hugging Face Hub.
        root, image_size, channels, flip, workers: as for a GAN.
        dequantize: not used by classifiers.
        crop: add this many black pixels at each border, then crop to the image's size at a random place; 0 is off.
        limit: number of training images to use, with equal numbers per class; null is all.
        limit_seed: seed that draws them; null is the run's seed.
        holdout: number of training images that are not trained on. They are the test set if the data has none
            (digits), otherwise the validation set for ``evaluate_on``.
        evaluate_on: test, or validation (the held-out images). Tune strengths on validation.
    """

    name: str = "cifar10"
    flip: bool = True
    dequantize: bool = False
    crop: int = at_least(0, 4)
    holdout: int = at_least(0, 0)
    evaluate_on: Literal["test", "validation"] = "test"

    def __post_init__(self) -> None:
        missing = self.evaluate_on == "validation" and not self.holdout
        require(not missing, "data.holdout", self.holdout, "above 0 where data.evaluate_on is validation")

    def parts(self, seed: int) -> dict[str, Any]:
        """The keyword arguments of ``cs_gan.data.train_and_test`` for a run of this seed."""
        names = ("name", "root", "image_size", "channels", "holdout", "limit")
        limit_seed = derive_seed(seed, "subset") if self.limit_seed is None else self.limit_seed
        chosen = {"validation": self.evaluate_on == "validation", "limit_seed": limit_seed}
        return {name: getattr(self, name) for name in names} | chosen


@dataclass
class NetworkConfig(ModelConfig):
    """The network: a name of ``models.CLASSIFIER_NAMES``, and settings that differ from its defaults."""

    name: str = "resnet20"
    dropout: float | None = None


@dataclass
class NetworkTrainingConfig(LoopConfig):
    """Training of the network.

    Args:
        epochs: number of passes over the training images, from which ``steps`` follows; null uses ``steps``.
        optimizer: sgd (usual for convolutional networks) or adamw (usual for transformers).
        learning_rate: learning rate after warm-up. adamw needs about a fiftieth of sgd's.
        weight_decay: weight decay: part of the gradient in sgd, separate from it in adamw.
        momentum, nesterov: settings of sgd; adamw uses torch's betas.
        decay: schedule of the learning rate: cosine to 0, or constant.
        warmup: fraction of the steps over which the learning rate grows from 0.
    """

    batch_size: int = at_least(1, 128)
    epochs: float | None = above_0(None)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = above_0(0.1)
    momentum: float = below_1(0.9)
    weight_decay: float = at_least(0, 5e-4)
    nesterov: bool = True
    decay: Literal["constant", "cosine"] = "cosine"
    warmup: float = below_1(0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.nesterov or self.momentum > 0, "training.nesterov", True, "false where momentum is 0")


@dataclass
class OneNetworkConfig(RunConfig):
    """What the recipes of classifiers and encoders have in common."""

    data: LabelledDataConfig = field(default_factory=LabelledDataConfig)
    training: NetworkTrainingConfig = field(default_factory=NetworkTrainingConfig)
    model: NetworkConfig = field(default_factory=NetworkConfig)

    @property
    def scheduled(self) -> bool:
        """Whether a step depends on the total number of steps."""
        return self.training.decay != "constant" or self.training.warmup > 0
