"""Networks: torch modules without training code. They don't know about coding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.base import Critic, Generator
from models.classifiers import CLASSIFIER_NAMES, Classifier, build_classifier
from models.conditional import ClassDrawing
from models.encoders import Encoder, build_encoder
from models.gan import GAN_NAMES, SIZED, build_gan
from models.own import build_own, own_class

if TYPE_CHECKING:
    from models.pretrained import PretrainedGenerator

__all__ = [
    "CLASSIFIER_NAMES",
    "GAN_NAMES",
    "SIZED",
    "ClassDrawing",
    "Classifier",
    "Critic",
    "Encoder",
    "Generator",
    "PretrainedGenerator",
    "build_classifier",
    "build_encoder",
    "build_gan",
    "build_own",
    "own_class",
]


def __getattr__(name: str) -> Any:
    # Imported lazily: it needs huggingface_hub, but the networks only need torch.
    if name == "PretrainedGenerator":
        from models.pretrained import PretrainedGenerator

        return PretrainedGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
