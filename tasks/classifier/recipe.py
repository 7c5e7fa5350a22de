"""The recipe of a classifier run. Values are checked when it is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cs_gan.training.recipes.keys import at_least, below_1, checked, names_of, require
from cs_gan.training.recipes.sections import CodeConfig
from tasks.sections import OneNetworkConfig


@dataclass
class MixConfig:
    """One way to mix samples.

    Args:
        alpha: the share is drawn from Beta(alpha, alpha); 0 is off.
        probability: probability that a batch is mixed.
    """

    alpha: float = at_least(0, 0.0)
    probability: float = checked(1.0, lambda probability: 0 < probability <= 1, "in (0, 1]")


@dataclass
class ManifoldMixConfig(MixConfig):
    """Manifold mixup (Verma et al. 2019).

    Args:
        alpha, probability: as for mixup.
        blocks: the input of one of these blocks is mixed, another one in every step; "" is the image itself.
    """

    blocks: list[str] | str = field(default_factory=lambda: ["", "blocks.0", "blocks.1"])

    def __post_init__(self) -> None:
        if isinstance(self.blocks, str):
            self.blocks = names_of(self.blocks)


@dataclass
class CodedClassifierConfig(CodeConfig):
    """Coded training: (1 - mu) task + mu penalty.

    Args:
        blocks: names or patterns of blocks; "" in a list is the whole network, whose outputs are the logits. [] is
            plain training.
        mu: weight of the penalty, in [0, 1).
        against: outputs compares decoded outputs with the block's outputs. labels uses the cross-entropy of decoded
            logits with the step's targets; then only the whole network can be coded.
    """

    blocks: list[str] | str = field(default_factory=list)
    mu: float = below_1(0.5)
    against: Literal["outputs", "labels"] = "outputs"

    def __post_init__(self) -> None:
        self.blocks = names_of(self.blocks)
        if self.against == "labels" and self.blocks:
            whole = 'made of "" alone, the whole network, whose outputs are logits: labels have no other block\'s shape'
            require(self.blocks == [""], "method.coded.blocks with against=labels", self.blocks, whole)
            held = self.stop_gradient
            require(held == "none", "method.coded.stop_gradient with against=labels", held, "none: labels have none")


@dataclass
class MethodConfig:
    """Regularisers. With all of them off, training is empirical risk minimisation (ERM). They can be combined.

    Args:
        label_smoothing: share of the target that is spread over all classes.
        logit_norm: weight of the mean square of the logits.
        jacobian: weight of the squared norm of the input-output Jacobian.
        mixup, cutmix, manifold_mixup: at most one of them.
        coded: coded-smoothing.
    """

    label_smoothing: float = below_1(0.0)
    logit_norm: float = at_least(0, 0.0)
    jacobian: float = at_least(0, 0.0)
    mixup: MixConfig = field(default_factory=MixConfig)
    cutmix: MixConfig = field(default_factory=MixConfig)
    manifold_mixup: ManifoldMixConfig = field(default_factory=ManifoldMixConfig)
    coded: CodedClassifierConfig = field(default_factory=CodedClassifierConfig)

    def __post_init__(self) -> None:
        mixes = [key for key in ("mixup", "cutmix", "manifold_mixup") if getattr(self, key).alpha > 0]
        require(len(mixes) <= 1, "method", ", ".join(mixes), "at most one of mixup, cutmix and manifold_mixup")


@dataclass
class AccuracyConfig:
    """Scores of the network.

    Args:
        batch_size: images per forward pass.
        rci_ratio: N/K of Randomized Coded Inference, which is scored too; null leaves it out.
        rci_blocks: names or patterns of the blocks that it codes; "" in a list is the whole network.
        rci_votes: number of forward passes that are averaged.
        rci_group: number of images that are coded together, K.
        fgsm: radii for pixels in [0, 1]. At the end, the plain network's accuracy under FGSM is measured for each.
        pgd: radii for pixels in [0, 1]. The same under PGD of 20 steps.
        attack_images: number of test images that FGSM and PGD attack, drawn by the seed, which the scores' names
            then say; null attacks all.
        corruptions: names of ``cs_gan.data.CORRUPTIONS``. At the end, accuracy on test images is measured for each.
        severity: severity of the corruptions, 1 to 5.
        shifted: name of ``cs_gan.data.SHIFTED_NAMES`` -> its folder. At the end, accuracy is measured on each. With
            cifar10_c, corruptions are read from its folder and not computed.
    """

    batch_size: int = at_least(1, 256)
    rci_ratio: float | None = 1.5
    rci_blocks: list[str] | str = field(default_factory=lambda: [""])
    rci_votes: int = at_least(1, 1)
    rci_group: int = at_least(2, 128)
    fgsm: list[float] = field(default_factory=list)
    pgd: list[float] = field(default_factory=list)
    attack_images: int | None = None
    corruptions: list[str] | str = field(default_factory=list)
    severity: int = checked(3, lambda severity: 1 <= severity <= 5, "1 to 5")
    shifted: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.corruptions = names_of(self.corruptions)
        self.rci_blocks = names_of(self.rci_blocks)
        require(
            len(self.rci_blocks) > 0, "metrics.rci_blocks", self.rci_blocks, "one block or more; rci_ratio=null is off"
        )
        ratio, smallest = self.rci_ratio, 2 / max(self.rci_group, 1)
        fits = ratio is None or ratio >= smallest
        require(fits, "metrics.rci_ratio", ratio, f"at least {smallest:g}, so that N is at least 2")
        for attack in ("fgsm", "pgd"):
            radii = getattr(self, attack)
            require(all(0 <= eps <= 1 for eps in radii), f"metrics.{attack}", radii, "radii from 0 to 1")
        count = self.attack_images
        require(count is None or count > 0, "metrics.attack_images", count, "1 or more; null is all")


@dataclass
class ClassifierConfig(OneNetworkConfig):
    """A whole recipe.

    Args:
        seed, output_dir, resume, extend, overwrite, history, dry_run, tracking: as in ``RunConfig``.
        data: the labelled images.
        model: the network.
        training: its training.
        method: the regularisers.
        metrics: the scores.
    """

    method: MethodConfig = field(default_factory=MethodConfig)
    metrics: AccuracyConfig = field(default_factory=AccuracyConfig)

    @property
    def scheduled(self) -> bool:
        """Whether a step depends on the total number of steps."""
        coded = self.method.coded
        return super().scheduled or (bool(coded.blocks) and coded.ratio_start != coded.ratio_end)
