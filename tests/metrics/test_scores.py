from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from cs_gan.errors import MetricError
from cs_gan.metrics import scores
from cs_gan.metrics.scores import (
    density_coverage,
    feature_statistics,
    frechet_distance,
    inception_score,
    kernel_distance,
    kid_subset_size,
    num_splits,
    precision_recall,
)


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
    for score in (kernel_distance, precision_recall, density_coverage):
        with pytest.raises(MetricError, match="finite"):
            score(features, torch.zeros(10, 3))
    with pytest.raises(MetricError, match="Inception Score"):
        inception_score(torch.full((20, 3), bad), 2)


def test_too_few_samples_have_no_score() -> None:
    with pytest.raises(MetricError, match=r"a covariance needs .* n >= 2"):
        feature_statistics(torch.zeros(1, 4))
    with pytest.raises(MetricError, match=r"the kernel distance needs .* n >= 2"):
        kernel_distance(torch.zeros(9, 4), torch.zeros(1, 4))
    with pytest.raises(MetricError, match=r"precision and recall needs .* n >= 4"):
        precision_recall(torch.zeros(3, 4), torch.zeros(9, 4))
    with pytest.raises(MetricError, match=r"density and coverage needs .* n >= 6"):
        density_coverage(torch.zeros(9, 4), torch.zeros(5, 4))


def _clouds(n: int, m: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two overlapping clouds (n, d), (m, d) of different shape."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=rng), 0.7 * torch.randn(m, d, generator=rng) + 0.5


def test_kernel_distance_matches_naive_mmd_on_the_same_subsets() -> None:
    generated, real = _clouds(30, 25, 6)
    x, y = generated.double().numpy(), real.double().numpy()
    rng = np.random.RandomState(2020)  # as torch-fidelity draws its subsets
    estimates = []
    for _ in range(100):
        a, b = x[rng.choice(30, 25, replace=False)], y[rng.choice(25, 25, replace=False)]
        within = across = 0.0
        for i in range(25):
            for j in range(25):
                across += (a[i] @ b[j] / 6 + 1) ** 3
                if i != j:
                    within += (a[i] @ a[j] / 6 + 1) ** 3 + (b[i] @ b[j] / 6 + 1) ** 3
        estimates.append(within / (25 * 24) - 2 * across / 25**2)
    # float32 sums of 625 kernel values of O(10), relative to means of O(1)
    assert kernel_distance(generated, real) == pytest.approx((np.mean(estimates), np.std(estimates)), abs=1e-4)


def test_precision_and_recall_match_a_double_loop() -> None:
    generated, real = _clouds(40, 60, 2)

    def share_inside(points: torch.Tensor, manifold: torch.Tensor) -> float:
        """Of ``points``, those within the third-neighbour ball of some point of ``manifold``."""
        inside = 0
        radii = [sorted((p - q).norm().item() for q in manifold)[3] for p in manifold]  # [0] is the point itself
        for point in points:
            inside += any((point - q).norm().item() <= r for q, r in zip(manifold, radii, strict=True))
        return inside / len(points)

    expected = share_inside(generated, real), share_inside(real, generated)
    assert precision_recall(generated, real) == pytest.approx(expected, abs=1e-6)  # float32 mean of zeros and ones
    assert 0 < expected[0] < expected[1] <= 1  # precision and recall aren't interchanged


def test_density_and_coverage_match_a_double_loop() -> None:
    generated, real = _clouds(40, 60, 2)
    k = 5
    inside, covered = 0, 0
    for x in real:  # NND_k of the paper's section 3: the distance to the k-th nearest, [0] is x itself
        radius = sorted((x - other).norm().item() for other in real)[k]
        near = [(x - y).norm().item() < radius for y in generated]
        inside += sum(near)
        covered += any(near)
    assert density_coverage(generated, real) == pytest.approx((inside / (k * 40), covered / 60))
    assert 0 < covered < 60
    assert inside / (k * 40) != covered / 60


def test_density_and_coverage_of_the_real_samples_themselves_are_one() -> None:
    real = _clouds(40, 60, 2)[1]
    assert density_coverage(real, real) == (1, 1)
    assert density_coverage(real + 100, real) == (0, 0)
    # All in one place: every ball that holds it counts 50 times in the density, and once in the coverage.
    density, coverage = density_coverage(real.mean(0).expand(50, 2), real)
    assert 0 < coverage < 0.5
    assert density * 5 == pytest.approx(coverage * 60)


def test_precision_and_recall_use_the_first_samples_of_each_side(monkeypatch: pytest.MonkeyPatch) -> None:
    generated, real = _clouds(40, 60, 2)
    expected = precision_recall(generated[:20], real[:20])
    monkeypatch.setattr(scores, "MANIFOLD_LIMIT", 20)
    assert precision_recall(generated, real) == expected


def test_kid_subsets_never_exceed_the_counts() -> None:
    assert [kid_subset_size(n, m) for n, m in ((50_000, 10_000), (200, 900), (900, 200))] == [1000, 200, 200]
