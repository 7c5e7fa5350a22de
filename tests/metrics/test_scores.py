from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics

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
    # Float64 throughout. The root has half the digits in the small eigenvalues, here above 1e-3.
    assert distance == pytest.approx(_oracle(a, b), rel=1e-9)


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


def test_of_many_samples_sorted_by_class_all_classes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    centres = torch.arange(10.0).repeat_interleave(40)[:, None] * 100
    generated, real = (centres + torch.randn(400, 2, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    monkeypatch.setattr(scores, "MANIFOLD_LIMIT", 200)  # the first 200 are of five classes
    assert all(score > 0.7 for score in (*precision_recall(generated, real), *density_coverage(generated, real)))
    assert precision_recall(generated, real) == precision_recall(generated, real)


def test_kid_subsets_never_exceed_the_counts() -> None:
    assert [kid_subset_size(n, m) for n, m in ((50_000, 10_000), (200, 900), (900, 200))] == [1000, 200, 200]


# -- precision ---------------------------------------------------------------------------------------

HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_statistics_are_those_of_float64(dtype: torch.dtype, offset: float) -> None:
    """As pytorch-fid computes them: np.mean and np.cov of float64 features."""
    features = (torch.randn(2000, 5, generator=torch.Generator().manual_seed(0)) + offset).to(dtype)
    statistics, exact = feature_statistics(features), features.double().numpy()
    assert all(array.dtype == np.float64 for array in statistics.values())
    # 2,000 sums of float64, each rounded by 1e-16 of at most 2,000 * 300
    np.testing.assert_allclose(statistics["mu"], np.mean(exact, axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(statistics["sigma"], np.cov(exact, rowvar=False), rtol=1e-9, atol=1e-12)


def test_statistics_of_other_packages_are_taken() -> None:
    a, b = _clouds(60, 50, 4)
    ours = feature_statistics(a), feature_statistics(b)
    expected = frechet_distance(*ours)
    assert frechet_distance(ours[0], {"mu": b.double().numpy().mean(0), "sigma": np.cov(b.numpy().T)}) == pytest.approx(
        expected, rel=1e-12
    )
    # torch-fidelity's own, with a mean in float32
    theirs = fid_features_to_statistics(b)
    assert theirs["mu"].dtype == np.float32
    assert frechet_distance(ours[0], theirs) == pytest.approx(expected, rel=1e-6)
    tensors = {name: torch.from_numpy(array) for name, array in ours[1].items()}
    assert frechet_distance(ours[0], tensors) == expected


def test_an_npz_file_of_pytorch_fid_is_taken(tmp_path: Path) -> None:
    a, b = (feature_statistics(each) for each in _clouds(60, 50, 4))
    np.savez_compressed(tmp_path / "b.npz", mu=b["mu"], sigma=b["sigma"])
    with np.load(tmp_path / "b.npz") as file:
        assert frechet_distance(a, file) == frechet_distance(a, b)


def test_a_single_feature_has_a_distance_too() -> None:
    a, b = _clouds(60, 50, 1)
    statistics = feature_statistics(a)
    assert (statistics["mu"].shape, statistics["sigma"].shape) == ((1,), (1, 1))
    x, y = a.double(), b.double()
    by_hand = (x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2  # of two normal distributions on a line
    assert frechet_distance(statistics, feature_statistics(b)) == pytest.approx(by_hand.item(), rel=1e-9)


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ({"mu": np.zeros(3)}, "sigma"),
        ((np.zeros(3), np.eye(3)), "mu"),
        ({"mu": np.zeros(3), "sigma": np.eye(4)}, r"\(3,\).*\(4, 4\)"),
        ({"mu": np.zeros((1, 3)), "sigma": np.eye(3)}, r"\(1, 3\)"),
        ({"mu": np.zeros(3, complex), "sigma": np.eye(3)}, "complex128"),
        ({"mu": np.zeros(3), "sigma": np.array([["a"] * 3] * 3)}, "U1"),
        ({"mu": np.zeros(4), "sigma": np.eye(4)}, "3 and of 4 features"),
    ],
)
def test_statistics_that_can_not_be_compared_are_refused(statistics: Any, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        frechet_distance({"mu": np.zeros(3), "sigma": np.eye(3)}, statistics)


def _mmd(generated: torch.Tensor, real: torch.Tensor) -> float:
    """The unbiased squared MMD of all samples, in float64."""
    x, y = generated.double(), real.double()
    xx, yy, xy = ((a @ b.T / a.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return float(within - 2 * xy.mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
@pytest.mark.parametrize("offset", [0.0, 10.0, 300.0])
def test_the_kernel_distance_is_that_of_float64_wherever_the_features_are(dtype: torch.dtype, offset: float) -> None:
    # As many samples as a subset has, so every subset is all of them.
    generated, real = ((3 * each + offset).to(dtype) for each in _clouds(200, 200, 64))
    mean, _ = kernel_distance(generated, real, subsets=2)
    # Near the origin float32 keeps 6e-8 of kernel values up to 1,000; else float64 1e-16 of up to 1e15.
    assert mean == pytest.approx(_mmd(generated, real), rel=1e-5, abs=1e-4 if offset == 0 else 1)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_features_score_as_the_same_numbers_in_float32(dtype: torch.dtype) -> None:
    generated, real = (each.to(dtype) for each in _clouds(220, 210, 32))
    wide = generated.float(), real.float()
    for score in (kernel_distance, precision_recall, density_coverage):
        assert score(generated, real) == score(*wide)
    assert inception_score(generated, 2) == inception_score(wide[0], 2)


@pytest.mark.parametrize("score", [kernel_distance, precision_recall, density_coverage])
def test_features_of_any_dtype_and_with_gradients_have_scores(
    score: Callable[..., tuple[float, float]],
) -> None:
    generated, real = _clouds(60, 70, 4)
    expected = score(generated.double(), real.double())
    assert score(generated.requires_grad_(), real.double()) == expected
    whole = [(each * 20).round() for each in (generated.detach(), real)]
    assert score(*(each.to(torch.int8) for each in whole)) == score(*(each.double() for each in whole))


def test_autocast_around_scores_changes_nothing() -> None:
    generated, real = _clouds(60, 70, 4)
    scores_of = lambda: [score(generated, real) for score in (kernel_distance, precision_recall, density_coverage)]
    expected = scores_of()
    with torch.autocast("cpu", torch.bfloat16):
        assert scores_of() == expected


@pytest.mark.parametrize("score", [kernel_distance, precision_recall, density_coverage])
def test_features_that_can_not_be_compared_are_refused(score: Callable[..., tuple[float, float]]) -> None:
    with pytest.raises(MetricError, match=r"float32 \(9, 4\) .*float64 \(8, 5\)"):
        score(torch.zeros(9, 4), torch.zeros(8, 5).double())
    with pytest.raises(MetricError, match=r"complex64 \(9, 4\)"):
        score(torch.zeros(9, 4, dtype=torch.complex64), torch.zeros(9, 4))
    with pytest.raises(MetricError, match=r"\(9, 0\)"):
        score(torch.zeros(9, 0), torch.zeros(9, 0))
    with pytest.raises(MetricError, match=r"\(9, 4, 1\)"):
        score(torch.zeros(9, 4), torch.zeros(9, 4, 1))


@pytest.mark.parametrize("splits", [0, -1, 21])
def test_splits_that_can_not_be_made_are_refused(splits: int) -> None:
    with pytest.raises(MetricError, match=f"splits = {splits} of 20 samples"):
        inception_score(torch.zeros(20, 3), splits)


@pytest.mark.parametrize("subsets", [0, -3])
def test_fewer_than_one_subset_is_refused(subsets: int) -> None:
    with pytest.raises(MetricError, match=f"subsets = {subsets}"):
        kernel_distance(*_clouds(20, 20, 3), subsets=subsets)


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(MetricError, match=r"\(20,\)"):
        inception_score(torch.zeros(20), 2)


@pytest.mark.parametrize("features", [8, 64])
def test_the_arithmetic_has_torch_fidelitys_bits(features: int) -> None:
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, features, generator=generator) for n in (130, 150))
    pair = [feature_statistics(cloud) for cloud in (x, y)]
    assert frechet_distance(*pair) == fid_statistics_to_metric(*pair, verbose=False)[KEY_METRIC_FID]
    theirs = isc_features_to_metric(x, splits=2)
    assert inception_score(x, 2) == (theirs[KEY_METRIC_ISC_MEAN], theirs[KEY_METRIC_ISC_STD])
    theirs = kid_features_to_metric(x, y, kid_subsets=7, kid_subset_size=130, kid_kernel="poly", verbose=False)
    assert kernel_distance(x, y, 7) == (theirs[KEY_METRIC_KID_MEAN], theirs[KEY_METRIC_KID_STD])
