"""Supervised training: one step for ERM, mixup and its kin, penalties on logits and Jacobian, and coding."""

from cs_gan.supervised.accuracy import accuracy
from cs_gan.supervised.losses import cross_entropy, jacobian_penalty, logit_norm_penalty
from cs_gan.supervised.mixes import CutMix, ManifoldMixUp, Mix, MixUp
from cs_gan.supervised.steps import classifier_step

__all__ = [
    "CutMix",
    "ManifoldMixUp",
    "Mix",
    "MixUp",
    "accuracy",
    "classifier_step",
    "cross_entropy",
    "jacobian_penalty",
    "logit_norm_penalty",
]
