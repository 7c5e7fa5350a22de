"""The class that logits predict, or none."""

from __future__ import annotations

from torch import Tensor

NO_CLASS = -1
"""The prediction of a sample whose logits don't define one. It equals no label, so it always counts as wrong."""


def predicted_classes(logits: Tensor) -> Tensor:  # (K, classes) -> (K,) int64
    """The class of the largest logit, or :data:`NO_CLASS` for a sample without a softmax.

    That is a sample with a NaN, with a logit of +inf, or with -inf for all classes. ``argmax`` takes a NaN for the
    largest value, so a network that gives only NaN would be right on all samples of class 0.
    """
    return logits.argmax(1).where(logits.amax(1).isfinite(), NO_CLASS)
