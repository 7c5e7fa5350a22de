"""Scores of frozen features: nearest neighbours and a linear probe. Only these use labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cs_gan.errors import MetricError

CHUNK = 256  # number of test features compared at a time
FLOOR = 1e-6  # minimum deviation that a feature is divided by


def knn_accuracy(
    bank: Tensor, bank_labels: Tensor, test: Tensor, test_labels: Tensor, *, k: int = 200, temperature: float = 0.07
) -> float:
    """Percentage of test features that their k nearest neighbours by cosine classify correctly.

    Each neighbour votes for its class with the weight exp(cosine / temperature).

    Args:
        bank, bank_labels: (n, F); (n,) int64, the features that vote.
        test, test_labels: (m, F); (m,) int64.
        k: number of neighbours; the whole bank if it is smaller.
        temperature: temperature of the weights.

    Source: Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, section 3.4.
    """
    _check(bank, bank_labels, test, test_labels)
    bank, classes = F.normalize(bank.float(), dim=1), int(bank_labels.max()) + 1
    right = 0
    for start in range(0, len(test), CHUNK):
        features = F.normalize(test[start : start + CHUNK].float(), dim=1)
        cosines, nearest = (features @ bank.T).topk(min(k, len(bank)), dim=1)
        weights = (cosines / temperature).exp()
        # scatter_add has no deterministic kernel on CUDA.
        votes = (weights.unsqueeze(1) @ F.one_hot(bank_labels[nearest], classes).float()).squeeze(1)
        right += int((votes.argmax(1) == test_labels[start : start + CHUNK]).sum())
    return 100 * right / len(test)


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
        train, train_labels: (n, F); (n,) int64.
        test, test_labels: (m, F); (m,) int64.
        decay: weight decay; biases have none.
        iterations: maximum number of iterations.
    """
    _check(train, train_labels, test, test_labels)
    train, test = train.double(), test.double()
    mean, deviation = train.mean(0), train.std(0).clamp(min=FLOOR)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    classes = int(train_labels.max()) + 1
    weight = torch.zeros(classes, train.shape[1], dtype=train.dtype, device=train.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=train.dtype, device=train.device, requires_grad=True)
    lbfgs = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        lbfgs.zero_grad()
        loss = F.cross_entropy(F.linear(train, weight, bias), train_labels) + decay / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        lbfgs.step(objective)  # type: ignore[no-untyped-call]
    predicted = F.linear(test, weight, bias).argmax(1)
    return 100 * float((predicted == test_labels).double().mean())


def _check(bank: Tensor, bank_labels: Tensor, test: Tensor, test_labels: Tensor) -> None:
    shapes = [tuple(each.shape) for each in (bank, bank_labels, test, test_labels)]
    fits = all(len(shapes[i]) == 2 and shapes[i + 1] == shapes[i][:1] and shapes[i][0] for i in (0, 2))
    if not fits or shapes[0][1] != shapes[2][1]:
        raise MetricError(
            f"features and labels of shapes {shapes}: give (n, F), (n,), (m, F) and (m,) with n and m at least 1."
        )
