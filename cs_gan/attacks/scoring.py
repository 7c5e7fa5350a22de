"""Accuracy on many fresh permutations: mean, worst of k and majority vote, with 95 % intervals over samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cs_gan.attacks.gradient import check_batch, checked_logits
from cs_gan.attacks.state import Forward
from cs_gan.core import RandomizedCodedInference
from cs_gan.errors import AttackError, BatchError
from cs_gan.predictions import predicted_classes

Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution


class Interval(NamedTuple):
    """An accuracy in [0, 1] and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def wilson(value: float, n: int) -> Interval:
    """Wilson's score interval of a proportion over n samples (Wilson 1927).

    Also used for the mean over draws. There it is wider than necessary, because a per-sample mean varies less than one
    draw. Unlike the normal interval it has a width above 0 at 0 and at 1.
    """
    if n < 1:
        raise AttackError("there are no samples to compute an accuracy: give at least one.")
    centre = (value + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * (value * (1 - value) / n + Z95**2 / (4 * n**2)) ** 0.5
    # Rounding may give 1 - 1e-16 where the interval ends at the value itself.
    return Interval(value, min(max(0.0, centre - half), value), max(min(1.0, centre + half), value))


@dataclass(frozen=True)
class Score:
    """Accuracy over n samples and k draws. For one draw all three are equal.

    ``worst`` counts a sample only if it is right in all draws. ``majority`` counts it if its class gets strictly more
    draws than any other class; a tie counts as wrong.
    """

    mean: Interval
    worst: Interval
    majority: Interval
    n: int
    draws: int


def score_predictions(predictions: Tensor, labels: Tensor) -> Score:  # (k, n), (n,)
    """Mean, worst of k and majority of predicted classes over k draws. A prediction of -1 is no class, so it is wrong.

    Raises:
        AttackError: for no draws, labels of another number, or labels below 0.
    """
    if predictions.dim() != 2 or not len(predictions) or labels.shape != predictions.shape[1:]:
        raise AttackError(
            f"score_predictions got predictions {tuple(predictions.shape)} and labels {tuple(labels.shape)}: give "
            "(draws, n) with at least one draw, and (n,)."
        )
    draws, n = predictions.shape
    if n and labels.min() < 0:
        raise AttackError(f"the smallest label is {int(labels.min())}: classes count from 0.")
    right = predictions == labels
    votes = (predictions[:, :, None] == predictions.T[None]).sum(0)  # (n, k): how often the class of each draw occurs
    right_votes = right.sum(0)
    most_wrong_votes = torch.where(right.T, torch.zeros_like(votes), votes).amax(1)
    shares = (right.double().mean(), right.all(0).double().mean(), (right_votes > most_wrong_votes).double().mean())
    mean, worst, majority = (wilson(share.item(), n) for share in shares)
    return Score(mean, worst, majority, n, draws)


def plain(defence: nn.Module) -> nn.Module:
    """The network without its defence. A network without RCI is returned unchanged."""
    return defence.model if isinstance(defence, RandomizedCodedInference) else defence


def fresh(defence: nn.Module, generator: torch.Generator) -> Forward:
    """The defended forward with new permutations at every call, drawn from ``generator``, not the defence's own."""
    if not isinstance(defence, RandomizedCodedInference):
        return defence

    def forward(x: Tensor) -> Tensor:
        with defence.drawing_from(generator):
            logits: Tensor = defence(x)
        return logits

    return forward


def fixed(defence: nn.Module, seed: int) -> Forward:
    """The defended forward with the same permutations at every call, given by ``seed``."""

    def forward(x: Tensor) -> Tensor:
        return fresh(defence, torch.Generator().manual_seed(seed))(x)

    return forward


@torch.no_grad()
def predict(
    defence: nn.Module, batches: Callable[[int], Tensor], seeds: list[int], labels: Tensor
) -> Tensor:  # draw -> (K, *F), k seeds, (K,) -> (k, K) classes
    """The predicted class of each sample in the batch of each draw, with the permutations of its seed.

    -1 for logits of NaN or +inf, which are no class.
    """
    draws = [checked_logits(fixed(defence, seed), batches(draw), labels) for draw, seed in enumerate(seeds)]
    return torch.stack([predicted_classes(logits) for logits in draws])


def groups(defence: nn.Module, images: Tensor, labels: Tensor, group_size: int) -> Iterator[slice]:
    """Slices of ``group_size`` samples that are coded together. The last may be short. All inputs are checked first.

    Warns of labels that are sorted: an image that is mixed only with others of its class keeps its label.

    Raises:
        AttackError: for images and labels of different lengths, or a group size below 1.
        BatchError: for a group of one without a reference bank, or a bank of another shape.
    """
    check_batch(images, labels)
    if group_size < 1:
        raise AttackError(f"group_size={group_size}: at least one image is coded at a time.")
    if isinstance(defence, RandomizedCodedInference):
        bank = defence.reference
        if bank is not None and bank.shape[1:] != images.shape[1:]:
            raise BatchError(
                f"the reference bank holds inputs of shape {tuple(bank.shape[1:])}, and the images "
                f"{tuple(images.shape[1:])}: give a bank of the same kind of input."
            )
        if bank is None and 1 in (min(group_size, len(images)), len(images) % group_size):
            raise BatchError(
                f"{len(images)} images in groups of {group_size} leave a group of one, which can't be coded. Choose "
                "another group_size, or construct RandomizedCodedInference(model, reference=bank)."
            )
        if 1 < group_size < len(labels) and labels[0] != labels[-1] and bool((labels.diff() >= 0).all()):
            warnings.warn(
                "the labels are sorted, so most groups hold one class, and images that are mixed only with others of "
                "their class keep their label: the accuracy means little. Shuffle images and labels.",
                stacklevel=3,
            )
    return (slice(start, min(start + group_size, len(images))) for start in range(0, len(images), group_size))
