"""Supervised training: one step for ERM, mixup and its variants, penalties and coding; measures of smoothness."""

from cs_gan.supervised.accuracy import accuracy
from cs_gan.supervised.classifier_losses import cross_entropy, jacobian_penalty, logit_norm_penalty
from cs_gan.supervised.mixes import CutMix, ManifoldMixUp, Mix, MixDraw, MixUp
from cs_gan.supervised.smoothness import Boundary, boundary, decision_field, jacobian_norm, segment_energy
from cs_gan.supervised.steps import StepDraw, classifier_step, draw_step

__all__ = [
    "Boundary",
    "CutMix",
    "ManifoldMixUp",
    "Mix",
    "MixDraw",
    "MixUp",
    "StepDraw",
    "accuracy",
    "boundary",
    "classifier_step",
    "cross_entropy",
    "decision_field",
    "draw_step",
    "jacobian_norm",
    "jacobian_penalty",
    "logit_norm_penalty",
    "segment_energy",
]
