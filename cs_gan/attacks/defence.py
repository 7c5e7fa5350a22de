"""Accuracy and cost of Randomized Coded Inference without an attack, compared with the plain network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.attacks.gradient import checked_logits
from cs_gan.attacks.scoring import Interval, Score, groups, predict, score_predictions, wilson
from cs_gan.attacks.state import PassCounter, clock, undisturbed
from cs_gan.core import RandomizedCodedInference
from cs_gan.predictions import predicted_classes
from cs_gan.randomness import derive_seed, stream


@dataclass(frozen=True)
class DefenceReport:
    """Accuracy of the plain network and of the same weights under RCI, and what RCI costs.

    ``passes_per_image`` counts the samples that run through the coded blocks per image: votes times N/K, and more if a
    reference bank fills up short groups. For the plain network it is 1. Seconds are per image, without gradients, in
    groups of ``group_size`` for both.
    """

    plain: Interval
    defended: Score
    ratio: float
    votes: int
    group_size: int
    passes_per_image: float
    plain_seconds: float
    defended_seconds: float

    @property
    def slowdown(self) -> float:
        """Seconds per defended image divided by seconds per plain image."""
        return self.defended_seconds / self.plain_seconds


def evaluate_defence(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    ratio: float = 1.5,
    votes: int = 1,
    group_size: int = 64,
    reference: Tensor | None = None,
    draws: int = 10,
    seed: int = 0,
    **options: Any,
) -> DefenceReport:
    """Plain and defended accuracy side by side, on ``draws`` fresh permutations of every group, and the cost.

    The network isn't attached afterwards.

    Args:
        network: (K, *F) -> logits (K, classes).
        ratio, votes, reference, options: as for :class:`RandomizedCodedInference` (blocks, spline, ...).
        group_size: samples coded together, K; a reference bank of K - 1 keeps a short last group at K.

    Raises:
        CodeError: for votes below 1, an empty bank, or a ratio that leaves fewer than two coded samples.
        BatchError: for a group of one without a bank, or a bank of another shape.
        AttackError: for labels or logits of wrong shape.
    """
    defence = RandomizedCodedInference(network, ratio, votes=votes, reference=reference, seed=seed, **options)
    try:
        return _measured(network, defence, images, labels, group_size, draws, seed)
    finally:
        defence.coded.detach()


def _measured(
    network: nn.Module,
    defence: RandomizedCodedInference,
    images: Tensor,
    labels: Tensor,
    group_size: int,
    draws: int,
    seed: int,
) -> DefenceReport:
    slices, labels = list(groups(defence, images, labels, group_size)), labels.long()
    defence.coded.code(max(2, min(group_size, len(images))))  # so that a ratio that is too small fails at once
    blocks = list(defence.coded.blocks.values())
    right, predicted, seconds = [], [], {"plain": 0.0, "defended": 0.0}
    with undisturbed(images.device, stream(seed, "measured"), defence), torch.no_grad():
        checked_logits(network, images[slices[0]], labels)  # checks all labels, and warms up before the timing
        predict(defence, lambda _: images[slices[0]], [0], labels)
        for part in slices:
            start = clock(images.device)
            right.append(predicted_classes(network(images[part])) == labels[part])
            seconds["plain"] += clock(images.device) - start
        with PassCounter(*blocks) as counter:
            for index, part in enumerate(slices):
                seeds = [derive_seed(seed, "group", index, "score", draw) for draw in range(draws)]
                batch = images[part]
                start = clock(images.device)
                predicted.append(predict(defence, lambda _: batch, seeds, labels[part]))  # noqa: B023 (called at once)
                seconds["defended"] += clock(images.device) - start
    served = len(images) * draws
    return DefenceReport(
        plain=wilson(torch.cat(right).double().mean().item(), len(images)),
        defended=score_predictions(torch.cat(predicted, 1), labels),
        ratio=defence.coded.ratio,
        votes=defence.votes,
        group_size=group_size,
        passes_per_image=counter.samples / (served * len(blocks)),
        plain_seconds=seconds["plain"] / len(images),
        defended_seconds=seconds["defended"] / served,
    )
