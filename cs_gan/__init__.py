"""Coded-smoothing (arXiv 2510.00253): regularise any block of a network by coding its batch."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    """The core is imported, with torch, when one of its names is first used. A study and its jobs need neither."""
    if name in __all__:
        globals()[name] = getattr(import_module("cs_gan.core"), name)
        return globals()[name]
    if name in ("core", "errors", "randomness"):
        return import_module(f"cs_gan.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
