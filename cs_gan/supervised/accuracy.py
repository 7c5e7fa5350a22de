"""Accuracy of a classifier, plain or under Randomized Coded Inference, over any number of processes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cs_gan.core import RandomizedCodedInference
from cs_gan.errors import MetricError
from cs_gan.precision import wide
from cs_gan.predictions import predicted_classes
from cs_gan.randomness import stream
from cs_gan.restore import evaluation_mode

NumberedBatch = tuple[int, Tensor, Tensor]  # group number, images (K, C, H, W), labels (K,)


BINS = 15
"""Of the expected calibration error, of equal width."""


class Accuracy(NamedTuple):
    """How well a classifier does on a set of images.

    Attributes:
        percent: of correctly classified images.
        cross_entropy: its mean, in nats.
        calibration_error: the expected calibration error, in percent: in each of 15 bins of confidence, the distance
            between accuracy and mean confidence (the largest probability), averaged over images. Source: Guo et al.
            2017, equation 3.
    """

    percent: float
    cross_entropy: float
    calibration_error: float


@torch.no_grad()
def accuracy(
    network: nn.Module, groups: Iterable[NumberedBatch], *, device: torch.device | str = "cpu", seed: int = 0
) -> Accuracy:
    """Percentage of correctly classified images, mean cross-entropy, and expected calibration error.

    Under :class:`RandomizedCodedInference` the images of a group are coded together. The permutations are drawn from
    (seed, group number), so the result doesn't depend on which process has the group. With torch.distributed, every
    process calls this with its own groups, and all return the same figures for all groups.

    A network that diverged has no class for some images: those with logits of NaN or +inf count as wrong, and the
    cross-entropy and the calibration error are then NaN or infinite.

    Args:
        network: (K, C, H, W) -> logits (K, classes); it runs in evaluation mode, without autocast.
        groups: (number, images, labels); labels of any integer dtype. Groups for
            :class:`RandomizedCodedInference` must mix classes, or images keep their label.
        device: where to compute.
        seed: of the permutations.

    Raises:
        MetricError: for no images at all, logits of another shape, or labels that aren't among the classes.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # read once, at the end
    bins = torch.zeros(2, BINS, dtype=torch.float64, device=device)  # right answers and confidence
    with evaluation_mode(network):
        for number, images, labels in groups:
            if isinstance(network, RandomizedCodedInference):
                drawing: AbstractContextManager[None] = network.drawing_from(stream(seed, "rci", number))
            else:
                drawing = nullcontext()
            with drawing, torch.autocast(torch.device(device).type, enabled=False):
                logits = network(images.to(device))
            targets = _checked(logits, labels).to(device)
            logits = wide(logits)
            right = predicted_classes(logits) == targets
            sums[0] += right.sum()
            sums[1] += F.cross_entropy(logits, targets, reduction="sum")
            confidence = logits.softmax(dim=1).amax(dim=1)
            places = (confidence * BINS).nan_to_num().long().clamp(max=BINS - 1)
            bins.index_add_(1, places, torch.stack([right, confidence]).double())
            sums[2] += len(labels)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
        torch.distributed.all_reduce(bins)
    right_count, loss, count = sums.tolist()
    if not count:
        raise MetricError("accuracy(groups=...) got no images: give at least one group.")
    gaps = (bins[0] - bins[1]).abs().sum().item()
    return Accuracy(100 * right_count / count, loss / count, 100 * gaps / count)


def _checked(logits: Any, labels: Tensor) -> Tensor:  # (K, classes), (K,) -> (K,) int64
    """The labels of a group, on their own device: reading them on a GPU would wait for the network."""
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[:1] != labels.shape:
        description = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise MetricError(
            f"accuracy: the network gave {description} for labels of shape {tuple(labels.shape)}. It must give logits "
            "(K, classes), for labels (K,)."
        )
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise MetricError(f"accuracy got labels of {labels.dtype}: give class numbers (labels.long()).")
    labels = labels.long()
    outside = labels[(labels < 0) | (labels >= logits.shape[1])]
    if len(outside):
        raise MetricError(
            f"accuracy: label {int(outside[0])} is not a class. The network has the classes 0 to "
            f"{logits.shape[1] - 1}: number the labels from 0, or leave out unlabelled images."
        )
    return labels
