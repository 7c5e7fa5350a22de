"""Scores for GANs with torch-fidelity, each under its correct name.

``Evaluator(extractor, reference, reference_about=..., num_samples=...)(generator, seed=0)`` gives ``Scores``.
"""

from cs_gan.metrics.evaluator import Evaluator
from cs_gan.metrics.extractors import EXTRACTORS, ExtractorSpec, load_extractor, register_extractors
from cs_gan.metrics.images import to_uint8
from cs_gan.metrics.scores import (
    Scores,
    density_coverage,
    feature_statistics,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)

__all__ = [
    "EXTRACTORS",
    "Evaluator",
    "ExtractorSpec",
    "Scores",
    "density_coverage",
    "feature_statistics",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "load_extractor",
    "precision_recall",
    "register_extractors",
    "to_uint8",
]
