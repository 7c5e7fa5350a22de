from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from cs_gan.errors import MetricError
from cs_gan.metrics.scores import feature_statistics, frechet_distance, inception_score, num_splits


def _oracle(a: torch.Tensor, b: torch.Tensor) -> float:
    x, y = a.double().numpy(), b.double().numpy()
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(s @ t).real
    return float(np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(s + t - 2 * root))


def test_frechet_distance_matches_scipy_sqrtm() -> None:
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(400, 6, generator=rng) @ torch.randn(6, 6, generator=rng)
    b = torch.randn(300, 6, generator=rng) @ torch.randn(6, 6, generator=rng) + 1
    distance = frechet_distance(feature_statistics(a), feature_statistics(b))
    assert distance == pytest.approx(_oracle(a, b), rel=1e-5)  # features and their mean are float32


def test_frechet_distance_of_known_gaussians() -> None:
    # Diagonal covariances commute: |mu|^2 + sum (sd1 - sd2)^2.
    first = {"mu": np.zeros(2), "sigma": np.diag([1.0, 4.0])}
    second = {"mu": np.array([3.0, 4.0]), "sigma": np.diag([9.0, 4.0])}
    assert frechet_distance(first, second) == pytest.approx(25 + 4)


def test_inception_score_at_its_bounds() -> None:
    confident = torch.eye(10).repeat(20, 1) * 100
    assert inception_score(confident, 1)[0] == pytest.approx(10)
    assert inception_score(torch.zeros(200, 10), 4) == pytest.approx((1, 0))


def test_splits_shrink_with_the_sample_count() -> None:
    assert [num_splits(n) for n in (2, 99, 100, 499, 500, 50_000)] == [1, 1, 2, 9, 10, 10]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_raise(bad: float) -> None:
    features = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    fine = feature_statistics(features)
    features[3, 1] = bad
    with pytest.raises(MetricError, match="finite"):
        feature_statistics(features)
    with pytest.raises(MetricError):
        frechet_distance({"mu": fine["mu"] + bad, "sigma": fine["sigma"]}, fine)
    with pytest.raises(MetricError):
        frechet_distance({"mu": fine["mu"], "sigma": fine["sigma"] + bad}, fine)
    with pytest.raises(MetricError, match="Inception Score"):
        inception_score(torch.full((20, 3), bad), 2)


def test_one_sample_has_no_covariance() -> None:
    with pytest.raises(MetricError, match="n >= 2"):
        feature_statistics(torch.zeros(1, 4))
