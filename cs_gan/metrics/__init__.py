"""Scores for GANs through torch-fidelity, each under an honest name.

``Evaluator(extractor, reference, reference_name=..., num_samples=...)(generator, seed=0)`` gives ``Scores``.
"""

from cs_gan.metrics.evaluator import Evaluator
from cs_gan.metrics.extractors import EXTRACTORS, ExtractorSpec, load_extractor
from cs_gan.metrics.images import to_uint8
from cs_gan.metrics.scores import Scores, feature_statistics, frechet_distance, inception_score

__all__ = [
    "EXTRACTORS",
    "Evaluator",
    "ExtractorSpec",
    "Scores",
    "feature_statistics",
    "frechet_distance",
    "inception_score",
    "load_extractor",
    "to_uint8",
]
