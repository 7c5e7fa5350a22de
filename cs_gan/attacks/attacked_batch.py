"""One coded batch under attack, and the adversarial inputs to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cs_gan.attacks.budget import Budget
from cs_gan.randomness import derive_seed, stream


@dataclass(frozen=True)
class Trial:
    """Adversarial inputs to score: per draw one batch and one seed; only some positions of the batch count.

    ``batch`` maps draw -> (K, *F), and ``labels`` is (K,); ``seeds`` has one entry per draw.
    """

    batch: Callable[[int], Tensor]
    labels: Tensor
    counted: list[int]
    seeds: list[int]


@dataclass(frozen=True)
class AttackedBatch:
    """One coded batch under attack, with everything that a threat model may use.

    Args:
        defence: the defended network, or a plain one.
        images, labels: the clean group, (K, *F) and (K,).
        pool: (M, *F) clean images for fresh neighbours; the group's first sample is ``pool[first]``.
        targets: positions for threats against one sample, each attacked in its own batch.
        key: derives every seed of this group; ``draws``: fresh permutations to score on.
        surrogate: another network, for ``transfer``.
    """

    defence: nn.Module
    images: Tensor
    labels: Tensor
    pool: Tensor
    first: int
    targets: list[int]
    budget: Budget
    key: tuple[int | str, ...]
    draws: int
    surrogate: nn.Module | None = None

    def generator(self, *purpose: int | str) -> torch.Generator:
        """The attacker's stream; scoring never draws from it."""
        return stream(*self.key, "attacker", *purpose)

    def seeds(self, *target: int) -> list[int]:
        """One seed for the permutations of each scoring draw, the same for all attacks."""
        return [derive_seed(*self.key, "score", draw, *target) for draw in range(self.draws)]

    def whole(self, images: Tensor, seeds: list[int] | None = None) -> Trial:
        """The whole group counts."""
        return Trial(lambda _: images, self.labels, list(range(len(images))), seeds or self.seeds())

    def single(self, batch: Callable[[int], Tensor], target: int) -> Trial:
        """One sample of the group counts."""
        return Trial(batch, self.labels, [target], self.seeds(target))
