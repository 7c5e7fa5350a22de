"""Coded-smoothing (arXiv 2510.00253): regularise any block of a network by coding its batch."""

from importlib.metadata import PackageNotFoundError, version

from cs_gan.core import CodedSmoothing, Diagnosis, Linear, RandomizedCodedInference, SplineCode

try:
    __version__ = version("cs-gan")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["CodedSmoothing", "Diagnosis", "Linear", "RandomizedCodedInference", "SplineCode", "__version__"]
