"""Networks only: torch modules that own no training and don't know that they are wrapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.base import Critic, Generator
from models.classifiers import CLASSIFIER_NAMES, Classifier, build_classifier
from models.encoders import Encoder, build_encoder
from models.gan import GAN_NAMES, build_gan

if TYPE_CHECKING:
    from models.pretrained import PretrainedGenerator

__all__ = [
    "CLASSIFIER_NAMES",
    "GAN_NAMES",
    "Classifier",
    "Critic",
    "Encoder",
    "Generator",
    "PretrainedGenerator",
    "build_classifier",
    "build_encoder",
    "build_gan",
]


def __getattr__(name: str) -> Any:
    # Looked up late: it needs huggingface_hub, and the networks themselves need torch alone.
    if name == "PretrainedGenerator":
        from models.pretrained import PretrainedGenerator

        return PretrainedGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
