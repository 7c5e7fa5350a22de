"""Accuracy of a classifier, plain or under Randomized Coded Inference, over any number of processes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cs_gan.core import RandomizedCodedInference
from cs_gan.randomness import stream

Group = tuple[int, Tensor, Tensor]  # group number, images (K, C, H, W), labels (K,)


@torch.no_grad()
def accuracy(
    network: nn.Module, groups: Iterable[Group], *, device: torch.device | str = "cpu", seed: int = 0
) -> tuple[float, float]:
    """Percentage of correctly classified images, and mean cross-entropy.

    Under :class:`RandomizedCodedInference` the images of a group are coded together. The permutations are drawn from
    (seed, group number), so the result doesn't depend on which process has the group. With torch.distributed, every
    process calls this with its own groups, and all return the same figures for all groups.

    Args:
        network: (K, C, H, W) -> logits (K, classes); it runs in evaluation mode, in float32.
        groups: (number, images, labels).
        device: where to compute.
        seed: of the permutations.
    """
    network.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # read once, at the end
    for number, images, labels in groups:
        if isinstance(network, RandomizedCodedInference):
            drawing: AbstractContextManager[None] = network.drawing_from(stream(seed, "rci", number))
        else:
            drawing = nullcontext()
        with drawing, torch.autocast(torch.device(device).type, enabled=False):
            logits = network(images.to(device)).float()
        targets = labels.to(device)
        right = (logits.argmax(1) == targets).sum()
        loss = F.cross_entropy(logits, targets, reduction="sum")
        sums[0] += right
        sums[1] += loss
        sums[2] += len(labels)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
    right, loss, count = sums.tolist()
    return 100 * right / count, loss / count
