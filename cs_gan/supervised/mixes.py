"""Mixup, CutMix and manifold mixup, as functions of the batch and a generator only.

All three pair sample k with sample k - 1 (and the first with the last), like torchvision. Batches are shuffled, so this
is a random pairing. In a batch of one, the sample is paired with itself and does not change.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.core import CodedSmoothing
from cs_gan.core.conventions import Role
from cs_gan.core.nestings import axes_of, map_leaves
from cs_gan.core.roles import Arguments, CallHistory, roles_by_user, roles_of
from cs_gan.core.selection import select_blocks
from cs_gan.errors import BatchError, BlockError, ConfigError
from cs_gan.supervised.labels import check_labels

Mixed = tuple[Tensor, Tensor]  # what the model is called with (K, *F), targets (K, C)
INPUT = "input"


@dataclass(frozen=True)
class MixDraw:
    """How one batch is mixed. The numbers are tensors on any device, so a CUDA graph reads their current values.

    Attributes:
        share: () float32, the share of a sample's own label.
        box: (4,) int64, left, top, right, bottom of the box that CutMix pastes.
        block: the block whose input manifold mixup mixes.
    """

    share: Tensor
    box: Tensor | None = None
    block: str | None = None


@dataclass(frozen=True)
class Mix(ABC):
    """A way to mix the samples of a batch and their labels, by shares drawn from Beta(alpha, alpha).

    Args:
        alpha: of the Beta distribution.
        probability: probability that a batch is mixed.

    Raises:
        ConfigError: if alpha is not above 0, or the probability not in (0, 1].
    """

    alpha: float = 1.0
    probability: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        name, plain = type(self).__name__, "to train without mixing give mix=None."
        if not 0 < self.probability <= 1:
            raise ConfigError(f"{name}(probability={self.probability}): must be in (0, 1]; {plain}")
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"{name}(alpha={self.alpha}): alpha of Beta(alpha, alpha) must be above 0; {plain}")

    def applies(self, generator: torch.Generator) -> bool:
        """Whether this batch is mixed. Draws nothing if the probability is 1."""
        return self.probability == 1 or bool(torch.rand((), generator=generator) < self.probability)

    def check(self, model: nn.Module, coded: CodedSmoothing | None) -> None:  # noqa: B027
        """Raise an error if this (bare) model can't be mixed. Mixing inputs works on all models."""

    def draw(self, model: nn.Module, shape: Sequence[int], generator: torch.Generator) -> MixDraw:
        """Draw the random numbers for mixing one batch.

        Args:
            model: the bare module.
            shape: of the batch, (K, *F).
            generator: on the CPU. It is advanced by exactly one seed.
        """
        with _drawing_from(generator):
            return self._draw(model, shape)

    @abstractmethod
    def _draw(self, model: nn.Module, shape: Sequence[int]) -> MixDraw:
        """The same, drawn from torch's global CPU generator."""

    def mixing(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        num_classes: int,
        draw: MixDraw,
        *,
        checked: bool = False,
    ) -> AbstractContextManager[Mixed]:
        """A context for the training forward. Gives (images to call the model with, soft targets).

        Args:
            model: the bare module.
            images: (K, *F), floating-point.
            labels: (K,), class numbers of any integer dtype.
            draw: the result of :meth:`draw`.
            checked: labels are known to be classes, so they aren't read.

        Raises:
            BatchError: for labels that are no classes, or images that can't be mixed.
        """
        if not checked:
            check_labels(labels, num_classes)
        return self._mixing(model, images, labels, num_classes, draw)

    @abstractmethod
    def _mixing(
        self, model: nn.Module, images: Tensor, labels: Tensor, num_classes: int, draw: MixDraw
    ) -> AbstractContextManager[Mixed]:
        """The same with labels that are classes."""

    def _share(self) -> float:
        """A share drawn from Beta(alpha, alpha)."""
        alpha = torch.tensor([self.alpha])
        return float(torch.distributions.Beta(alpha, alpha).sample())


@dataclass(frozen=True)
class MixUp(Mix):
    """lambda x_k + (1 - lambda) x_{k-1}, and the same for labels; one lambda per batch.

    Draws and results are those of ``torchvision.transforms.v2.MixUp``. Source: Zhang et al. 2018 (arXiv 1710.09412).
    """

    def _draw(self, model: nn.Module, shape: Sequence[int]) -> MixDraw:
        return MixDraw(torch.tensor(self._share()))

    @contextmanager
    def _mixing(
        self, model: nn.Module, images: Tensor, labels: Tensor, num_classes: int, draw: MixDraw
    ) -> Iterator[Mixed]:
        """See :class:`Mix`; images of any shape."""
        _check_images(self, images)
        share = draw.share.to(images.device)
        yield _mixed_with_the_one_before(images, share), _soft(labels, num_classes, share)


@dataclass(frozen=True)
class CutMix(Mix):
    """Pastes a box of x_{k-1} into x_k and mixes labels by area; one box per batch.

    Draws and results are those of ``torchvision.transforms.v2.CutMix``. Source: Yun et al. 2019 (arXiv 1905.04899).
    """

    def _draw(self, model: nn.Module, shape: Sequence[int]) -> MixDraw:
        height, width = shape[-2:]
        side = 0.5 * math.sqrt(1 - self._share())
        x, y = int(torch.randint(width, (1,))), int(torch.randint(height, (1,)))
        half_width, half_height = int(side * width), int(side * height)
        left, right = max(x - half_width, 0), min(x + half_width, width)
        top, bottom = max(y - half_height, 0), min(y + half_height, height)
        share = 1 - (right - left) * (bottom - top) / (width * height)
        return MixDraw(torch.tensor(share), torch.tensor([left, top, right, bottom]))

    @contextmanager
    def _mixing(
        self, model: nn.Module, images: Tensor, labels: Tensor, num_classes: int, draw: MixDraw
    ) -> Iterator[Mixed]:
        """See :class:`Mix`; images of (K, C, H, W)."""
        _check_images(self, images)
        if images.dim() != 4:
            raise BatchError(
                f"CutMix cuts boxes out of images (K, C, H, W), got {tuple(images.shape)}. Use MixUp for other data."
            )
        assert draw.box is not None
        left, top, right, bottom = draw.box.to(images.device)
        row = torch.arange(images.shape[2], device=images.device)[:, None]
        column = torch.arange(images.shape[3], device=images.device)
        inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)
        yield (
            torch.where(inside, images.roll(1, 0), images),
            _soft(labels, num_classes, draw.share.to(images.device)),
        )


@dataclass(frozen=True)
class ManifoldMixUp(Mix):
    """Mixup of the input of one block. For every batch one of ``blocks`` is chosen at random, uniformly.

    The first call of the block in a forward is mixed, in every argument that coding would encode
    (cs_gan/core/roles.py). Integers and masks stay as they are. Choose blocks that all of the signal passes through: a
    skip connection around a block stays unmixed, while the labels are mixed. A coded block gets the mixed batch for
    both its plain and its coded pass. The chosen block must not be inside a coded block, whose coded pass has N samples
    and not K.

    Args:
        alpha: parameter of Beta(alpha, alpha); the source uses 2 on CIFAR-10.
        blocks: names or patterns as in :class:`CodedSmoothing`; ``"input"`` or ``""`` is the input itself.
        arguments: as in :class:`CodedSmoothing`, for arguments that may or may not have a batch axis.

    Raises:
        ConfigError: if blocks is empty, or a string and not a list.

    Source: Verma et al. 2019 (arXiv 1806.05236), section 2.
    """

    blocks: Sequence[str] = ()
    arguments: Arguments = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.blocks, str) or not self.blocks:
            raise ConfigError(
                f'ManifoldMixUp(blocks={self.blocks!r}): give a list of block names, such as ["input", "layer1"].'
            )

    def check(self, model: nn.Module, coded: CodedSmoothing | None) -> None:
        """Raise an error for unknown blocks and for blocks inside a coded block.

        Raises:
            BlockError: names the nearest block, or the coded one.
        """
        for mixed, block in self._choices(model).items():
            for name, outer in coded.blocks.items() if coded and block is not model else ():
                if block is not outer and any(block is inner for inner in outer.modules()):
                    raise BlockError(
                        f"ManifoldMixUp can't mix at {mixed!r} inside the coded block {name!r}, whose coded pass runs "
                        f"on other samples. Remove {mixed!r} from blocks, or code a block inside or after it."
                    )

    def _draw(self, model: nn.Module, shape: Sequence[int]) -> MixDraw:
        share, choices = self._share(), list(self._choices(model))
        return MixDraw(torch.tensor(share), block=choices[int(torch.randint(len(choices), ()))])

    @contextmanager
    def _mixing(
        self, model: nn.Module, images: Tensor, labels: Tensor, num_classes: int, draw: MixDraw
    ) -> Iterator[Mixed]:
        """See :class:`Mix`; the hook exists only in the context."""
        share, name, choices = draw.share.to(images.device), draw.block or "", self._choices(model)
        targets = _soft(labels, num_classes, share)
        if choices[name] is model:
            _check_images(self, images)
            yield _mixed_with_the_one_before(images, share), targets
            return
        hook = _MixOnce(name, roles_by_user({name: choices[name]}, self.arguments)[name], len(images), share)
        # Before existing hooks, so that a coded block encodes the mixed batch.
        handle = choices[name].register_forward_pre_hook(hook, prepend=True, with_kwargs=True)
        try:
            yield images, targets
        finally:
            handle.remove()
        if not hook.done:
            raise BlockError(
                f"ManifoldMixUp chose the block {name!r}, which the model's forward does not call. Remove it from "
                "blocks. (A model compiled as a whole does not see the hook: compile its blocks instead.)"
            )

    def _choices(self, model: nn.Module) -> dict[str, nn.Module]:
        """Name -> block; the input is represented by the model itself."""
        return select_blocks(model, ["" if name == INPUT else name for name in self.blocks])


class _MixOnce:
    """A forward pre-hook that mixes only the first call, because the next may be the block's coded pass."""

    def __init__(self, name: str, user_roles: Mapping[int | str, Role], K: int, share: Tensor) -> None:
        self.name, self.user_roles, self.K, self.share = name, user_roles, K, share
        self.done = False

    def __call__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.done:
            return None
        K, roles = roles_of(
            self.name, block, (args, kwargs), axes_of(block, 0), self.user_roles, CallHistory(), least=1
        )
        if K != self.K or not any(role.kind == "encode" for role in roles):
            raise BatchError(
                f"ManifoldMixUp at {self.name!r}: none of its inputs is a floating-point tensor whose batch axis has "
                f"{self.K} samples. Choose a block that takes one."
            )
        self.done, remaining = True, iter(roles)
        return map_leaves(
            lambda leaf: self._mixed(leaf, next(remaining)) if isinstance(leaf, Tensor) else leaf, (args, kwargs)
        )

    def _mixed(self, x: Tensor, role: Role) -> Tensor:
        return _mixed_with_the_one_before(x, self.share, role.axis or 0) if role.kind == "encode" else x


def _mixed_with_the_one_before(x: Tensor, share: Tensor, axis: int = 0) -> Tensor:  # (K, *F), () -> (K, *F)
    return share * x + (1 - share) * x.roll(1, axis)


def _soft(labels: Tensor, num_classes: int, share: Tensor) -> Tensor:  # (K,), () -> (K, C) float32
    # one_hot would read the labels on the host
    hot = labels[:, None] == torch.arange(num_classes, device=labels.device)
    return _mixed_with_the_one_before(hot.float(), share)


def _check_images(mix: Mix, images: Tensor) -> None:
    if not images.is_floating_point():
        raise BatchError(
            f"{type(mix).__name__} got inputs of {images.dtype}: only floating-point ones can be mixed. Convert images "
            "with .float(); for token ids use ManifoldMixUp at a block after the embedding."
        )


@contextmanager
def _drawing_from(generator: torch.Generator) -> Iterator[None]:
    """A context in which torch's global CPU generator is seeded from ``generator``; on exit its state is restored.

    torch's distributions can only draw from the global generator.
    """
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device="cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
