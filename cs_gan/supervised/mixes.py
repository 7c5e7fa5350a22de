"""Mixup, CutMix and manifold mixup, as functions of the batch and a generator alone.

All three pair sample k with sample k - 1 (the last with the first), as torchvision does: batches are
shuffled, so this is a random pairing. A batch of one is paired with itself, which leaves it as it is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map
from torchvision.transforms import v2

from cs_gan.core import CodedSmoothing
from cs_gan.core.selection import select_blocks
from cs_gan.errors import BatchError, BlockError, ConfigError

Mixed = tuple[Tensor, Tensor]  # what the model is called with (K, *F), targets (K, C)
INPUT = "input"


@dataclass(frozen=True)
class Mix(ABC):
    """A way to mix the samples of a batch and their labels, by shares drawn from Beta(alpha, alpha).

    Args:
        alpha: of the Beta distribution.
        probability: that a batch is mixed at all.

    Raises:
        ConfigError: if alpha is not above 0, or the probability not in (0, 1].
    """

    alpha: float = 1.0
    probability: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ConfigError(
                f"{type(self).__name__}(probability={self.probability}): must be in (0, 1]; "
                "to train without mixing give mix=None."
            )
        if not 0 < self.alpha < math.inf:
            raise ConfigError(
                f"{type(self).__name__}(alpha={self.alpha}): alpha of Beta(alpha, alpha) must be above 0; "
                "to train without mixing give mix=None."
            )

    def applies(self, generator: torch.Generator) -> bool:
        """Whether this batch is mixed; nothing is drawn where all are."""
        return self.probability == 1 or bool(torch.rand((), generator=generator) < self.probability)

    def check(self, model: nn.Module, coded: CodedSmoothing | None) -> None:  # noqa: B027
        """Refuse what can't work on this (bare) model; a mix of inputs works on all."""

    @abstractmethod
    def mixing(
        self, model: nn.Module, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> AbstractContextManager[Mixed]:
        """Around the training forward: (images to call the model with, soft targets).

        Args:
            model: the bare module.
            images: (K, *F), floating-point.
            labels: (K,), int64.
            generator: on the CPU; it gives one seed, whatever is then drawn.
        """


@dataclass(frozen=True)
class MixUp(Mix):
    """lambda x_k + (1 - lambda) x_{k-1}, labels alike, one lambda a batch: ``torchvision.transforms.v2.MixUp``.

    Source: Zhang et al. 2018 (arXiv 1710.09412).
    """

    @contextmanager
    def mixing(
        self, model: nn.Module, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Iterator[Mixed]:
        """See :class:`Mix`; images of any shape."""
        _check_images(self, images)
        # torchvision takes (K, C, H, W) only, but the mix is the same for every shape.
        as_images = images if images.dim() == 4 else images.reshape(len(images), 1, 1, -1)
        with _drawing_from(generator):
            mixed, targets = v2.MixUp(alpha=self.alpha, num_classes=num_classes)(as_images, labels)
        yield mixed.reshape(images.shape), targets


@dataclass(frozen=True)
class CutMix(Mix):
    """A box of x_{k-1} pasted into x_k, labels by area, one box a batch: ``torchvision.transforms.v2.CutMix``.

    Source: Yun et al. 2019 (arXiv 1905.04899).
    """

    @contextmanager
    def mixing(
        self, model: nn.Module, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Iterator[Mixed]:
        """See :class:`Mix`; images of (K, C, H, W)."""
        _check_images(self, images)
        if images.dim() != 4:
            raise BatchError(
                f"CutMix cuts boxes out of images (K, C, H, W) and got {tuple(images.shape)}: use MixUp for other data."
            )
        with _drawing_from(generator):
            mixed, targets = v2.CutMix(alpha=self.alpha, num_classes=num_classes)(images, labels)
        yield mixed, targets


@dataclass(frozen=True)
class ManifoldMixUp(Mix):
    """Mixup of what one of ``blocks`` takes, chosen anew for every batch, uniformly.

    The block's first call of the forward is mixed, in every floating-point argument whose first axis is the
    batch. Choose blocks through which all of the signal goes: a skip connection around one stays unmixed,
    while the labels are mixed. A coded block gets the mixed batch too, for its plain and its coded pass; but
    the chosen block may not lie inside a coded one, whose coded pass has N samples where the mix has K.

    Args:
        alpha: of Beta(alpha, alpha); the source uses 2 on CIFAR-10.
        blocks: names or patterns as in :class:`CodedSmoothing`; ``"input"`` or ``""`` is the input itself.

    Raises:
        ConfigError: for no blocks, or a string in place of a list.

    Source: Verma et al. 2019 (arXiv 1806.05236), section 2.
    """

    blocks: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.blocks, str) or not self.blocks:
            raise ConfigError(
                f'ManifoldMixUp(blocks={self.blocks!r}): give a list of block names, such as ["input", "layer1"].'
            )

    def check(self, model: nn.Module, coded: CodedSmoothing | None) -> None:
        """Refuse unknown blocks, and those inside a coded block.

        Raises:
            BlockError: names the nearest block, or the coded one.
        """
        for mixed, block in self._choices(model).items():
            for name, outer in coded.blocks.items() if coded and block is not model else ():
                if block is not outer and any(block is inner for inner in outer.modules()):
                    raise BlockError(
                        f"ManifoldMixUp can't mix at {mixed!r} inside the coded block {name!r}, whose coded pass runs "
                        f"on other samples: leave {mixed!r} out of blocks, or code a block within or after it."
                    )

    @contextmanager
    def mixing(
        self, model: nn.Module, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Iterator[Mixed]:
        """See :class:`Mix`; the hook lives as long as the context."""
        choices = self._choices(model)
        with _drawing_from(generator):
            alpha = torch.tensor([self.alpha])
            share = float(torch.distributions.Beta(alpha, alpha).sample())
            name = list(choices)[int(torch.randint(len(choices), ()))]
        hot = F.one_hot(labels, num_classes).float()
        targets = _mixed_with_the_one_before(hot, share)
        if choices[name] is model:
            _check_images(self, images)
            yield _mixed_with_the_one_before(images, share), targets
            return
        hook = _MixOnce(name, len(images), share)
        # Ahead of the hooks that are there: a block that is coded too encodes the mixed batch.
        handle = choices[name].register_forward_pre_hook(hook, prepend=True, with_kwargs=True)
        try:
            yield images, targets
        finally:
            handle.remove()
        if not hook.done:
            raise BlockError(
                f"ManifoldMixUp chose the block {name!r}, which the model's forward does not call: leave it out of "
                "blocks. (A model compiled as a whole does not see the hook: compile its blocks instead.)"
            )

    def _choices(self, model: nn.Module) -> dict[str, nn.Module]:
        """Name -> block, the input as the model itself."""
        return select_blocks(model, ["" if name == INPUT else name for name in self.blocks])


class _MixOnce:
    """A forward pre-hook that mixes the first call: the next may be the block's own coded pass."""

    def __init__(self, name: str, K: int, share: float) -> None:
        self.name, self.K, self.share = name, K, share
        self.done = False

    def __call__(self, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.done:
            return None
        mixed = tree_map(self._mixed, (args, kwargs))
        if not self.done:
            raise BatchError(
                f"ManifoldMixUp at {self.name!r}: none of its inputs is a floating-point tensor whose first axis is "
                f"the batch of {self.K}. Choose a block that takes one."
            )
        return mixed

    def _mixed(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or leaf.shape[:1] != (self.K,):
            return leaf
        self.done = True
        return _mixed_with_the_one_before(leaf, self.share)


def _mixed_with_the_one_before(x: Tensor, share: float) -> Tensor:  # (K, *F) -> (K, *F)
    return share * x + (1 - share) * x.roll(1, 0)


def _check_images(mix: Mix, images: Tensor) -> None:
    if not images.is_floating_point():
        raise BatchError(
            f"{type(mix).__name__} got inputs of {images.dtype}: only floating-point ones can be mixed. Convert images "
            "with .float(); for token ids use ManifoldMixUp at a block after the embedding."
        )


@contextmanager
def _drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Inside, torch's global CPU generator runs on one seed drawn from ``generator``; on exit it is as before.

    torchvision's transforms draw from the global one and take no other.
    """
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device="cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
