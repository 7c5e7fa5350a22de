"""Scores for GANs with torch-fidelity, each under its correct name.

``Evaluator(extractor, reference, reference_about=..., num_samples=...)(generator, seed=0)`` gives ``Scores``.
"""

from cs_gan.metrics.comparison import Comparer, SampleSet
from cs_gan.metrics.evaluator import Evaluator
from cs_gan.metrics.extractors import EXTRACTORS, ExtractorSpec, load_extractor
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
from cs_gan.metrics.statistics import read_npz, read_statistics, write_statistics

__all__ = [
    "EXTRACTORS",
    "Comparer",
    "Evaluator",
    "ExtractorSpec",
    "SampleSet",
    "Scores",
    "density_coverage",
    "feature_statistics",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "load_extractor",
    "precision_recall",
    "read_npz",
    "read_statistics",
    "to_uint8",
    "write_statistics",
]
