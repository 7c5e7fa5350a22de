"""What labels a mix takes."""

from __future__ import annotations

import torch
from torch import Tensor

from cs_gan.errors import BatchError


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise BatchError unless labels are integers (K,), on the CPU also if one of them is no class."""
    if labels.dim() != 1 or labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise BatchError(
            f"a mix got labels of {labels.dtype} {tuple(labels.shape)}: give class numbers (K,). One-hot labels need "
            ".argmax(1)."
        )
    # Reading labels on a GPU would wait for it. A label that is no class would mix in a target of zeros.
    if labels.device.type == "cpu" and len(labels):
        low, high = (int(value) for value in labels.aminmax())
        if low < 0 or high >= num_classes:
            raise BatchError(
                f"label {low if low < 0 else high} is not a class: with num_classes={num_classes} classes are 0 to "
                f"{num_classes - 1}. Set num_classes to that of the data set, or number the labels from 0."
            )
