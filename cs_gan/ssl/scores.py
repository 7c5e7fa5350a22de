"""Scores of frozen features: nearest neighbours and a linear probe. Only these use labels.

An encoder that diverged gives features of NaN or infinity. A test image with such a feature has no class and counts as
wrong. A training image with one does not vote and is not fitted, with a warning. So a training run goes on to its end,
with scores of 0. Both scores are computed in float32 or better, under any autocast.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from cs_gan.errors import MetricError
from cs_gan.predictions import predicted_classes

CHUNK = 256  # number of test features compared at a time
FLOOR = 1e-6  # minimum deviation that a feature is divided by


def knn_accuracy(
    bank: Tensor, bank_labels: Tensor, test: Tensor, test_labels: Tensor, *, k: int = 200, temperature: float = 0.07
) -> float:
    """Percentage of test features that their k nearest neighbours by cosine classify correctly.

    Each neighbour votes for its class with the weight exp(cosine / temperature).

    Args:
        bank, bank_labels: (n, F); (n,) class numbers from 0 of any integer dtype, the features that vote.
        test, test_labels: (m, F); (m,).
        k: number of neighbours; the whole bank if it is smaller.
        temperature: temperature of the weights.

    Raises:
        MetricError: for k below 1, a temperature that isn't above 0, or shapes or labels that don't fit.

    Source: Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, section 3.4.
    """
    if k < 1 or not 0 < temperature < math.inf:
        raise MetricError(f"knn_accuracy({k=}, {temperature=}): give k of at least 1 and a temperature above 0.")
    bank, bank_labels, test, test_labels = _checked("knn_accuracy", bank, bank_labels, test, test_labels)
    if not len(bank):
        return 0.0
    right = 0
    with torch.no_grad(), torch.autocast(bank.device.type, enabled=False):
        bank, classes = F.normalize(bank, dim=1), int(bank_labels.max()) + 1
        for start in range(0, len(test), CHUNK):
            features = F.normalize(test[start : start + CHUNK], dim=1)
            cosines, nearest = (features @ bank.T).topk(min(k, len(bank)), dim=1)
            # Relative to the nearest: at a low temperature exp(1 / temperature) is infinite.
            weights = ((cosines - cosines[:, :1]) / temperature).exp()
            # scatter_add has no deterministic kernel on CUDA.
            votes = (weights.unsqueeze(1) @ F.one_hot(bank_labels[nearest], classes).to(weights)).squeeze(1)
            right += int((predicted_classes(votes) == test_labels[start : start + CHUNK]).sum())
    return 100 * right / len(test)


@torch.inference_mode(False)
def linear_probe(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    decay: float = 1e-3,
    iterations: int = 200,
) -> float:
    """Test accuracy in percent of a logistic regression fitted to the training features.

    Features are standardised with mean and deviation of the training features. The objective, mean cross-entropy plus
    ``decay`` / 2 times the squared weights, is convex and minimised on all features at once by L-BFGS from zero, so
    nothing is random.

    Args:
        train, train_labels: (n, F); (n,) class numbers from 0 of any integer dtype.
        test, test_labels: (m, F); (m,).
        decay: weight decay; biases have none.
        iterations: maximum number of iterations.

    Raises:
        MetricError: for a decay below 0, no iterations, or shapes or labels that don't fit.
    """
    if not 0 <= decay < math.inf or iterations < 1:
        raise MetricError(f"linear_probe({decay=}, {iterations=}): give a decay of 0 or more and at least 1 iteration.")
    train, train_labels, test, test_labels = _checked("linear_probe", train, train_labels, test, test_labels)
    if not len(train):
        return 0.0
    # Copies, because tensors of inference mode can't be used for a gradient.
    train, test, train_labels = train.double(), test.double(), train_labels.clone()
    # One sample alone has no deviation, and features without one stay as they are.
    mean, deviation = train.mean(0), train.std(0, correction=min(1, len(train) - 1)).clamp(min=FLOOR)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    classes = int(train_labels.max()) + 1
    weight = torch.zeros(classes, train.shape[1], dtype=train.dtype, device=train.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=train.dtype, device=train.device, requires_grad=True)
    lbfgs = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        lbfgs.zero_grad()
        loss = F.cross_entropy(F.linear(train, weight, bias), train_labels) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        lbfgs.step(objective)
    predicted = predicted_classes(F.linear(test, weight, bias))
    return 100 * float((predicted == test_labels).double().mean())


def _checked(
    call: str, bank: Tensor, bank_labels: Tensor, test: Tensor, test_labels: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features in float32 or better without gradients, those of the bank finite, and int64 labels."""
    shapes = [tuple(each.shape) for each in (bank, bank_labels, test, test_labels)]
    fits = all(len(shapes[i]) == 2 and shapes[i + 1] == shapes[i][:1] and shapes[i][0] for i in (0, 2))
    if not fits or not shapes[0][1] == shapes[2][1] > 0:
        raise MetricError(
            f"features and labels of shapes {shapes}: give (n, F), (n,), (m, F) and (m,) with n, m and F at least 1."
        )
    for labels in (bank_labels, test_labels):
        if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
            raise MetricError(f"{call} got labels of {labels.dtype}: give class numbers (labels.long()).")
        if int(labels.min()) < 0:
            raise MetricError(
                f"{call}: the smallest label is {int(labels.min())}, and classes count from 0. Leave out unlabelled "
                "images."
            )
    if bank.is_complex() or test.is_complex():
        raise MetricError(f"{call} got features of {bank.dtype} and {test.dtype}: give real ones.")
    dtype = torch.promote_types(torch.promote_types(bank.dtype, test.dtype), torch.float32)
    bank, test = bank.detach().to(dtype), test.detach().to(dtype)
    finite = bank.isfinite().all(1)
    if not bool(finite.all()):
        lost = len(bank) - int(finite.sum())
        warnings.warn(
            f"{call}: {lost:,} of {len(bank):,} training images have features that aren't finite and are left out.",
            stacklevel=3,
        )
        bank, bank_labels = bank[finite], bank_labels[finite]
    return bank, bank_labels.long(), test, test_labels.long()
