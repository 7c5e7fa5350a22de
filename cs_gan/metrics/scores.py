"""The scores as pure functions of features.

Fréchet and kernel distance and the Inception Score have the bits of torch-fidelity's (``fidelity.py``). Features may be
on any device, of any real dtype, with gradients: all is computed on the CPU, in float32 or float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cs_gan.errors import MetricError
from cs_gan.metrics.distances import TIE, clouds, squared_distances, squared_radii
from cs_gan.metrics.fidelity import frechet, split_inception_scores, subset_kernel_distances

Statistics = dict[str, npt.NDArray[Any]]

# With fewer samples, a split's Inception Score is limited by its size, not by the images.
MIN_SAMPLES_PER_SPLIT = 50
MAX_SPLITS = 10
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
# Above this largest value of the kernel, float32 leaves fewer than four digits of a distance, and far from the origin
# none. Then the kernel is in float64, which takes twice the time.
KERNEL_LIMIT = 1000.0
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
    """Mean and unbiased covariance of features in float64 (Heusel et al. 2017, arXiv:1706.08500).

    Raises:
        MetricError: fewer than two samples, complex features, or one that isn't finite.
    """
    array = _checked("a covariance", features, minimum=2).numpy()
    sigma = np.asarray(np.cov(array, rowvar=False, dtype=np.float64))
    # For one feature numpy's covariance is a number.
    return {"mu": np.asarray(np.mean(array, axis=0, dtype=np.float64)), "sigma": sigma.reshape(2 * array.shape[1:])}


def frechet_distance(first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), Heusel et al. 2017, eq. 6, in float64.

    Takes statistics of any real dtype, also those of other packages, such as an ``.npz`` file of pytorch-fid.

    Raises:
        MetricError: statistics that lack an array, have other shapes or aren't finite, or a result that isn't.
    """
    pair = [checked_statistics(statistics) for statistics in (first, second)]
    if pair[0]["mu"].shape != pair[1]["mu"].shape:
        raise MetricError(
            f"the Fréchet distance compares statistics of {len(pair[0]['mu'])} and of {len(pair[1]['mu'])} features: "
            "both must come from the same layer of the same extractor"
        )
    try:
        distance = frechet(*pair)
    except np.linalg.LinAlgError as error:
        raise MetricError(f"the Fréchet distance can't be computed: {error}") from error
    return _finite("the Fréchet distance", distance)


def num_splits(num_samples: int) -> int:
    """The usual 10 splits, or fewer if a split would have less than 50 samples; at least one."""
    return max(1, min(MAX_SPLITS, num_samples // MIN_SAMPLES_PER_SPLIT))


def inception_score(logits: Tensor, splits: int) -> tuple[float, float]:  # (n, classes)
    """exp(E KL(p(y|x) || p(y))), its mean and standard deviation over splits (arXiv:1606.03498, section 4).

    Raises:
        MetricError: logits of another shape, splits below 1 or above n, or a result that isn't finite.
    """
    if logits.dim() != 2 or logits.is_complex():
        raise MetricError(f"the Inception Score needs real logits (n, classes), got {_named(logits)}")
    if not 1 <= splits <= len(logits):
        raise MetricError(f"splits = {splits} of {len(logits)} samples: each split of the Inception Score needs one")
    mean, deviation = split_inception_scores(logits.cpu(), splits, SHUFFLE_SEED)
    return _finite("the Inception Score", mean), _finite("the Inception Score's deviation", deviation)


def kid_subset_size(*counts: int) -> int:
    """The usual 1000, or the smallest count if there are fewer samples."""
    return min(KID_SUBSET_SIZE, *counts)


def kernel_distance(
    generated: Tensor, real: Tensor, subsets: int = KID_SUBSETS
) -> tuple[float, float]:  # (n, d), (m, d)
    """Unbiased squared MMD under the kernel (x.y / d + 1)^3, its mean and standard deviation over subsets.

    Bińkowski et al. 2018 (arXiv:1801.01401), section 4. The subsets are the same for the same counts.

    Raises:
        MetricError: fewer than two samples, features of different width, no subsets, or a feature or result that
            isn't finite.
    """
    check_subsets(subsets)
    generated, real = _pair("the kernel distance", generated, real, minimum=2, minimum_real=2)
    largest = max(
        float(features.square().mean(1, dtype=torch.float64).max()) for features in (generated, real)
    )  # of x.x / d
    dtype = torch.float64 if (largest + 1) ** 3 > KERNEL_LIMIT else generated.dtype
    x, y = (features.to(dtype).cpu().numpy() for features in (generated, real))
    mean, deviation = subset_kernel_distances(x, y, subsets, kid_subset_size(len(x), len(y)), SHUFFLE_SEED)
    return _finite("the kernel distance", mean), _finite("the kernel distance's deviation", deviation)


def precision_recall(generated: Tensor, real: Tensor) -> tuple[float, float]:  # (n, d), (m, d) -> in [0, 1]
    """The share of generated samples on the real manifold, and of real samples on the generated one.

    A manifold is the union of balls around samples, each reaching to its third nearest neighbour: Kynkäänniemi
    et al. 2019 (arXiv:1904.06991), eq. 1 and 2. At most 10,000 of each side are used, drawn with a
    fixed seed: files come sorted, often by class.

    Raises:
        MetricError: fewer than four samples, features of different width, or one that isn't finite.
    """
    generated, real = _pair("precision and recall", generated, real, minimum=MIN_SAMPLES, minimum_real=MIN_SAMPLES)
    fake, true = clouds(_subset(generated), _subset(real))
    fake_radii, true_radii = (squared_radii(cloud, NEIGHBOURS) for cloud in (fake, true))
    precise, recalled = 0, torch.zeros(len(true_radii), dtype=torch.bool)
    for place, part in fake.parts():
        squares = squared_distances(part, true, -TIE)  # the balls are closed: a tie is inside
        precise += int((squares <= true_radii).any(1).sum())
        recalled |= (squares <= fake_radii[place, None]).any(0)
    return precise / len(fake_radii), int(recalled.sum()) / len(recalled)


def density_coverage(generated: Tensor, real: Tensor) -> tuple[float, float]:  # (m, d), (n, d)
    """Density of generated samples among real ones, and the share of real samples with a generated one nearby.

    Naeem et al. 2020 (arXiv:2002.09797), section 3. B(i) is the ball around the real sample x_i that reaches to its
    k-th nearest real neighbour, k = 5: density = sum_ij [y_j in B(i)] / (k m), coverage = sum_i [some y_j in B(i)] / n.
    The ball is open, as in the authors' code. Density can exceed 1; for the real samples themselves it is 1. At most
    10,000 of each side are used, drawn with a fixed seed.

    Raises:
        MetricError: fewer than six real samples, no generated ones, features of different width, or one that isn't
            finite.
    """
    generated, real = _pair("density and coverage", generated, real, minimum=1, minimum_real=MIN_REAL)
    fake, true = clouds(_subset(generated), _subset(real))
    radii, inside, covered = squared_radii(true, DENSITY_NEIGHBOURS), 0, 0
    for place, part in true.parts():
        within = squared_distances(part, fake, TIE) < radii[place, None]  # a tie is outside
        inside += int(within.sum())
        covered += int(within.any(dim=1).sum())
    return inside / (DENSITY_NEIGHBOURS * len(fake.points)), covered / len(radii)


def _subset(features: Tensor) -> Tensor:  # (n, d) -> (at most MANIFOLD_LIMIT, d)
    """All features, or so many drawn at random."""
    if len(features) <= MANIFOLD_LIMIT:
        return features
    drawn = torch.randperm(len(features), generator=torch.Generator().manual_seed(SHUFFLE_SEED))
    return features[drawn[:MANIFOLD_LIMIT]]


def check_subsets(subsets: int) -> None:
    """Raise MetricError for no subsets, before anything is computed."""
    if subsets < 1:
        raise MetricError(f"subsets = {subsets}: the kernel distance is a mean over subsets, at least 1")


def _checked(score: str, features: Tensor, minimum: int) -> Tensor:  # (n, d) -> (n, d)
    """The features on the CPU, in float32 or float64, without their graph."""
    if features.dim() != 2 or len(features) < minimum or not features.shape[1] or features.is_complex():
        raise MetricError(f"{score} needs real features (n, d) with n >= {minimum}, got {_named(features)}")
    if not bool(torch.isfinite(features).all()):
        raise MetricError("the extractor returned features that aren't finite; no score can be computed from them")
    wide = torch.promote_types(features.dtype, torch.float32) if features.is_floating_point() else torch.float64
    return features.detach().cpu().to(wide)


def _pair(
    score: str, generated: Tensor, real: Tensor, minimum: int, minimum_real: int
) -> tuple[Tensor, Tensor]:  # (n, d), (m, d) -> the same in one dtype
    first, second = _checked(score, generated, minimum), _checked(score, real, minimum_real)
    if first.shape[1] != second.shape[1]:
        raise MetricError(
            f"{score} compares generated features of {_named(generated)} with real ones of {_named(real)}: both must "
            "come from the same layer of the same extractor"
        )
    dtype = torch.promote_types(first.dtype, second.dtype)
    return first.to(dtype), second.to(dtype)


def checked_statistics(statistics: Mapping[str, Any]) -> Statistics:
    """mu (d,) and sigma (d, d) in float64; MetricError if they aren't finite or of other shapes."""
    try:
        moments = {name: np.asarray(statistics[name]) for name in ("mu", "sigma")}
    except (KeyError, TypeError, RuntimeError, IndexError) as error:
        raise MetricError(f"statistics need arrays mu (d,) and sigma (d, d): {error!r}") from error
    mu, sigma = moments["mu"], moments["sigma"]
    if any(array.dtype.kind not in "fiu" for array in moments.values()) or mu.ndim != 1 or sigma.shape != 2 * mu.shape:
        raise MetricError(
            f"statistics need real mu (d,) and sigma (d, d), got {mu.dtype} {mu.shape} and {sigma.dtype} {sigma.shape}"
        )
    if not all(bool(np.isfinite(array).all()) for array in moments.values()):
        raise MetricError("the Fréchet distance can't be computed from statistics that aren't finite")
    return {name: array.astype(np.float64) for name, array in moments.items()}


def _named(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def _finite(score: str, value: float) -> float:
    if not math.isfinite(value):
        raise MetricError(f"{score} came out as {value}; it is no valid score")
    return value
