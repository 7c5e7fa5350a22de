"""Named errors. Every message repeats the call and says what to do."""

from __future__ import annotations


class CsGanError(Exception):
    """Base of all errors this package raises on purpose."""


class ConfigError(CsGanError, ValueError):
    """A configuration key or value that can't be used."""


class CodeError(CsGanError, ValueError):
    """A code that can't be built (N below 2, unknown spline) or a tensor that doesn't fit it."""


class BlockError(CsGanError, ValueError):
    """A block that doesn't exist, is already attached, or can't be coded or differentiated as requested."""


class BatchError(CsGanError, ValueError):
    """A batch that can't be coded: one sample, integer inputs, a wrong batch axis."""


class DataError(CsGanError, ValueError):
    """Training images that are missing, empty or broken."""


class MetricError(CsGanError, RuntimeError):
    """A score that can't be computed correctly: missing weights, too few samples."""


class AttackError(CsGanError, ValueError):
    """An attack that can't be run as requested: a bad budget, labels or logits of wrong shape, NaN gradients."""


class CheckpointError(CsGanError, RuntimeError):
    """A checkpoint that is missing, damaged or belongs to another run."""


class DivergedError(CsGanError, RuntimeError):
    """A loss that is no longer finite."""
