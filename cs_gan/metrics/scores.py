"""The scores as pure functions of features. The arithmetic is torch-fidelity's; the checks are ours."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from cs_gan.errors import MetricError

Statistics = dict[str, npt.NDArray[Any]]

# With fewer samples, a split's Inception Score is limited by its size, not by the images.
MIN_SAMPLES_PER_SPLIT = 50
MAX_SPLITS = 10
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
# Precision and recall use the distance to the third neighbour and n x n distances.
NEIGHBOURS = 3
MIN_SAMPLES = NEIGHBOURS + 1
MANIFOLD_LIMIT = 10_000
# Density and coverage use the fifth neighbour, as in the experiments of their paper.
DENSITY_NEIGHBOURS = 5
MIN_REAL = DENSITY_NEIGHBOURS + 1
SHUFFLE_SEED = 2020  # torch-fidelity's own default: its command line draws the same splits and subsets


@dataclass(frozen=True)
class Scores:
    """Named scores and their provenance.

    Attributes:
        values: score name -> value, each finite: distance, Inception Score, kernel distance, precision, recall,
            density, coverage, and the " std" of the second and third. A Fréchet distance can be a tiny negative number
            because of rounding. A kernel distance is unbiased: for equal distributions it is below 0 as often as
            above.
        primary: the name of the distance, the score to compare runs by (lower is better).
        provenance: extractor, weights and their sha256, counts, reference, seed, seconds, processes, notes. Two
            scores can be compared if all of it agrees, except the seed, the seconds, the processes and the caller's
            description of the generator.
    """

    values: dict[str, float]
    primary: str
    provenance: dict[str, Any] = field(default_factory=dict)


def feature_statistics(features: Tensor) -> Statistics:  # (n, d) -> mu (d,), sigma (d, d)
    """Mean and unbiased covariance of features (Heusel et al. 2017, arXiv:1706.08500).

    Raises:
        MetricError: fewer than two samples, or a feature that isn't finite.
    """
    _check_features("a covariance", features, minimum=2)
    statistics: Statistics = fid_features_to_statistics(features.cpu())
    return statistics


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), Heusel et al. 2017, eq. 6.

    Raises:
        MetricError: statistics or a result that aren't finite.
    """
    for statistics in (first, second):
        if not all(bool(np.isfinite(array).all()) for array in statistics.values()):
            raise MetricError("the Fréchet distance can't be computed from statistics that aren't finite")
    try:
        distance = float(fid_statistics_to_metric(first, second, verbose=False)[KEY_METRIC_FID])
    except np.linalg.LinAlgError as error:
        raise MetricError(f"the Fréchet distance can't be computed: {error}") from error
    return _finite("the Fréchet distance", distance)


def num_splits(num_samples: int) -> int:
    """The usual 10 splits, or fewer if a split would have less than 50 samples; at least one."""
    return max(1, min(MAX_SPLITS, num_samples // MIN_SAMPLES_PER_SPLIT))


def inception_score(logits: Tensor, splits: int) -> tuple[float, float]:  # (n, classes)
    """exp(E KL(p(y|x) || p(y))), its mean and standard deviation over splits (arXiv:1606.03498, section 4).

    Raises:
        MetricError: a result that isn't finite.
    """
    result = isc_features_to_metric(logits.cpu(), splits=splits, shuffle=True, rng_seed=SHUFFLE_SEED)
    mean = _finite("the Inception Score", float(result[KEY_METRIC_ISC_MEAN]))
    return mean, _finite("the Inception Score's deviation", float(result[KEY_METRIC_ISC_STD]))


def kid_subset_size(*counts: int) -> int:
    """The usual 1000, or the smallest count if there are fewer samples."""
    return min(KID_SUBSET_SIZE, *counts)


def kernel_distance(
    generated: Tensor, real: Tensor, subsets: int = KID_SUBSETS
) -> tuple[float, float]:  # (n, d), (m, d)
    """Unbiased squared MMD under the kernel (x.y / d + 1)^3, its mean and standard deviation over subsets.

    Bińkowski et al. 2018 (arXiv:1801.01401), section 4. The subsets are the same for the same counts.

    Raises:
        MetricError: fewer than two samples, or a feature or result that isn't finite.
    """
    for features in (generated, real):
        _check_features("the kernel distance", features, minimum=2)
    result = kid_features_to_metric(
        generated.cpu(),
        real.cpu(),
        kid_subsets=subsets,
        kid_subset_size=kid_subset_size(len(generated), len(real)),
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
        rng_seed=SHUFFLE_SEED,
        verbose=False,
    )
    mean = _finite("the kernel distance", float(result[KEY_METRIC_KID_MEAN]))
    return mean, _finite("the kernel distance's deviation", float(result[KEY_METRIC_KID_STD]))


def precision_recall(generated: Tensor, real: Tensor) -> tuple[float, float]:  # (n, d), (m, d) -> in [0, 1]
    """The share of generated samples on the real manifold, and of real samples on the generated one.

    A manifold is the union of balls around samples, each reaching to its third nearest neighbour: Kynkäänniemi
    et al. 2019 (arXiv:1904.06991), eq. 1 and 2. At most the first 10,000 of each side are used.

    Raises:
        MetricError: fewer than four samples, or a feature that isn't finite.
    """
    for features in (generated, real):
        _check_features("precision and recall", features, minimum=MIN_SAMPLES)
    result = prc_features_to_metric(
        generated[:MANIFOLD_LIMIT].cpu(),
        real[:MANIFOLD_LIMIT].cpu(),
        prc_neighborhood=NEIGHBOURS,
        prc_batch_size=1000,  # 40 MB of distances at a time
        save_cpu_ram=True,
        verbose=False,
    )
    return float(result[KEY_METRIC_PRECISION]), float(result[KEY_METRIC_RECALL])


def density_coverage(generated: Tensor, real: Tensor) -> tuple[float, float]:  # (m, d), (n, d)
    """Density of generated samples among real ones, and the share of real samples with a generated one nearby.

    Naeem et al. 2020 (arXiv:2002.09797), section 3. B(i) is the ball around the real sample x_i that reaches to its
    k-th nearest real neighbour, k = 5: density = sum_ij [y_j in B(i)] / (k m), coverage = sum_i [some y_j in B(i)] / n.
    The ball is open, as in the authors' code. Density can exceed 1; for the real samples themselves it is 1. At most
    the first 10,000 of each side are used.

    Raises:
        MetricError: fewer than six real samples, no generated ones, or a feature that isn't finite.
    """
    _check_features("density and coverage", generated, minimum=1)
    _check_features("density and coverage", real, minimum=MIN_REAL)
    generated, real = generated[:MANIFOLD_LIMIT].cpu(), real[:MANIFOLD_LIMIT].cpu()
    inside = covered = 0
    for start in range(0, len(real), 1000):  # 40 MB of distances at a time
        some = real[start : start + 1000]
        radii = torch.cdist(some, real).kthvalue(DENSITY_NEIGHBOURS + 1).values  # the first is the sample itself
        within = torch.cdist(some, generated) < radii[:, None]
        inside += int(within.sum())
        covered += int(within.any(dim=1).sum())
    return inside / (DENSITY_NEIGHBOURS * len(generated)), covered / len(real)


def _check_features(what: str, features: Tensor, minimum: int) -> None:
    if features.dim() != 2 or len(features) < minimum:
        raise MetricError(f"{what} needs features (n, d) with n >= {minimum}, got {tuple(features.shape)}")
    if not bool(torch.isfinite(features).all()):
        raise MetricError("the extractor returned features that aren't finite; no score can be computed from them")


def _finite(what: str, value: float) -> float:
    if not math.isfinite(value):
        raise MetricError(f"{what} came out as {value}; this is a failure, not a score")
    return value
