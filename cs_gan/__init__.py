"""Coded-smoothing (arXiv 2510.00253): regularise any block of a network by coding its batch."""

from cs_gan.core import CodedSmoothing, Diagnosis, Linear, RandomizedCodedInference, SplineCode

__version__ = "0.1.0"
__all__ = ["CodedSmoothing", "Diagnosis", "Linear", "RandomizedCodedInference", "SplineCode", "__version__"]
