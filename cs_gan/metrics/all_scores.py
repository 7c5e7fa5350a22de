"""All scores that features and logits of two sets of images give, each under its full name."""

from __future__ import annotations

import torch
from torch import Tensor

from cs_gan.metrics.cache import Arrays
from cs_gan.metrics.extractors import ExtractorSpec
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


def all_scores(spec: ExtractorSpec, generated: tuple[Tensor, ...], real: Arrays, kid_subsets: int) -> dict[str, float]:
    """The scores of generated features and logits against mu, sigma and features of real images."""
    features = generated[0]
    some_real = torch.from_numpy(real["features"])
    values = {spec.named("FD"): frechet_distance(feature_statistics(features), real)}
    values |= inception_scores(spec, generated)
    values[spec.named("KID")], deviation = kernel_distance(features, some_real, kid_subsets)
    if kid_subset_size(len(features), len(some_real)) < max(len(features), len(some_real)):  # the same here
        values[f"{spec.named('KID')} std"] = deviation
    values[spec.named("precision")], values[spec.named("recall")] = precision_recall(features, some_real)
    values[spec.named("density")], values[spec.named("coverage")] = density_coverage(features, some_real)
    return values


def inception_scores(spec: ExtractorSpec, generated: tuple[Tensor, ...]) -> dict[str, float]:
    """The Inception Score and its deviation; nothing if the extractor has no classes."""
    if not spec.logit_layer:
        return {}
    splits = num_splits(len(generated[1]))
    score, deviation = inception_score(generated[1], splits)
    values = {spec.named("IS"): score}
    if splits > 1:  # the deviation over one split is always 0
        values[f"{spec.named('IS')} std"] = deviation
    return values
