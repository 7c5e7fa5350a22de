"""Coded-smoothing (arXiv 2510.00253): regularise any block of a network by coding its batch."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from cs_gan.lazy import lazily

if TYPE_CHECKING:
    from cs_gan.core import (
        CodedSmoothing,
        Diagnosis,
        HeldShare,
        Linear,
        RandomizedCodedInference,
        SplineCode,
        in_coded_pass,
    )

try:
    __version__ = version("cs-gan")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = [
    "CodedSmoothing",
    "Diagnosis",
    "HeldShare",
    "Linear",
    "RandomizedCodedInference",
    "SplineCode",
    "__version__",
    "in_coded_pass",
]

# The core comes with torch. A study and its jobs need neither, and no script needs them before it knows what to do.
if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, __dir__ = lazily(__name__, "errors", "randomness")
