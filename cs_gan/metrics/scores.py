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

from cs_gan.errors import MetricError

Statistics = dict[str, npt.NDArray[Any]]

# Below this many samples a split's Inception Score is bounded by its size rather than by the images.
MIN_SAMPLES_PER_SPLIT = 50
MAX_SPLITS = 10


@dataclass(frozen=True)
class Scores:
    """Named scores and what they were computed from.

    Attributes:
        values: score name -> value, each finite; a distance may be a tiny negative number, which is rounding.
        primary: the name of the distance, the score to compare runs by (lower is better).
        provenance: extractor, weights and their sha256, counts, reference, seed, seconds, notes. Two scores can
            be compared where all of it but the seed and the seconds agrees.
    """

    values: dict[str, float]
    primary: str
    provenance: dict[str, Any] = field(default_factory=dict)


def feature_statistics(features: Tensor) -> Statistics:  # (n, d) -> mu (d,), sigma (d, d)
    """Mean and unbiased covariance of features (Heusel et al. 2017, arXiv:1706.08500).

    Raises:
        MetricError: fewer than two samples, or a feature that isn't finite.
    """
    if features.dim() != 2 or len(features) < 2:
        raise MetricError(f"a covariance needs features (n, d) with n >= 2, got {tuple(features.shape)}")
    if not bool(torch.isfinite(features).all()):
        raise MetricError("the extractor returned features that aren't finite; no score can be computed from them")
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
    """The customary 10 splits, or fewer where a split would hold less than 50 samples; at least one."""
    return max(1, min(MAX_SPLITS, num_samples // MIN_SAMPLES_PER_SPLIT))


def inception_score(logits: Tensor, splits: int) -> tuple[float, float]:  # (n, classes)
    """exp(E KL(p(y|x) || p(y))), its mean and standard deviation over splits (arXiv:1606.03498, section 4).

    Raises:
        MetricError: a result that isn't finite.
    """
    result = isc_features_to_metric(logits.cpu(), splits=splits)
    mean = _finite("the Inception Score", float(result[KEY_METRIC_ISC_MEAN]))
    return mean, _finite("the Inception Score's deviation", float(result[KEY_METRIC_ISC_STD]))


def _finite(what: str, value: float) -> float:
    if not math.isfinite(value):
        raise MetricError(f"{what} came out as {value}; it is reported as a failure, never as a number")
    return value
