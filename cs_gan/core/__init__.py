"""The coded core: encode a batch, run a block on it, decode, compare."""

from cs_gan.core.code import SplineCode
from cs_gan.core.context import in_coded_pass
from cs_gan.core.diagnosis.report import BlockDiagnosis, Diagnosis, Finding
from cs_gan.core.inference import RandomizedCodedInference
from cs_gan.core.schedule import Linear
from cs_gan.core.share import HeldShare, gradient_norms
from cs_gan.core.smoothing import CodedSmoothing

__all__ = [
    "BlockDiagnosis",
    "CodedSmoothing",
    "Diagnosis",
    "Finding",
    "HeldShare",
    "Linear",
    "RandomizedCodedInference",
    "SplineCode",
    "gradient_norms",
    "in_coded_pass",
]
