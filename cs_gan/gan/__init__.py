"""WGAN-GP and alternatives: losses, penalties, augmentations, critic and generator steps, the averaged generator."""

from cs_gan.gan.adversarial_losses import (
    LOSSES,
    AdversarialLoss,
    critic_loss,
    generator_loss,
    hinge_critic_loss,
    non_saturating_critic_loss,
    non_saturating_generator_loss,
    relativistic_critic_loss,
    relativistic_generator_loss,
)
from cs_gan.gan.augmentations import DIFF_AUGMENT, VIEW, diff_augment, mixed_images
from cs_gan.gan.conditional import conditioned
from cs_gan.gan.double_backward import fast_double_backward
from cs_gan.gan.ema import averaged
from cs_gan.gan.penalties import LeCam, consistency_penalty, feature_norm_penalty, gradient_penalty, r1_penalty
from cs_gan.gan.spectral import spectrally_normalised
from cs_gan.gan.steps import CODED_ON, critic_step, generator_step
from cs_gan.gan.terms import Consistency, FeatureNorm, GradientPenalty, LeCamTerm, Term, ZeroCentred

__all__ = [
    "CODED_ON",
    "DIFF_AUGMENT",
    "LOSSES",
    "VIEW",
    "AdversarialLoss",
    "Consistency",
    "FeatureNorm",
    "GradientPenalty",
    "LeCam",
    "LeCamTerm",
    "Term",
    "ZeroCentred",
    "averaged",
    "conditioned",
    "consistency_penalty",
    "critic_loss",
    "critic_step",
    "diff_augment",
    "fast_double_backward",
    "feature_norm_penalty",
    "generator_loss",
    "generator_step",
    "gradient_penalty",
    "hinge_critic_loss",
    "mixed_images",
    "non_saturating_critic_loss",
    "non_saturating_generator_loss",
    "r1_penalty",
    "relativistic_critic_loss",
    "relativistic_generator_loss",
    "spectrally_normalised",
]
