"""Supervised training: one step for ERM, mixup and its kin, penalties, and coding; measures of smoothness."""

from cs_gan.supervised.accuracy import accuracy
from cs_gan.supervised.losses import cross_entropy, jacobian_penalty, logit_norm_penalty
from cs_gan.supervised.mixes import CutMix, ManifoldMixUp, Mix, MixUp
from cs_gan.supervised.smoothness import Boundary, boundary, decision_field, jacobian_norm, segment_energy
from cs_gan.supervised.steps import classifier_step

__all__ = [
    "Boundary",
    "CutMix",
    "ManifoldMixUp",
    "Mix",
    "MixUp",
    "accuracy",
    "boundary",
    "classifier_step",
    "cross_entropy",
    "decision_field",
    "jacobian_norm",
    "jacobian_penalty",
    "logit_norm_penalty",
    "segment_energy",
]
