"""WGAN-GP: losses, gradient penalty, the critic's and the generator's step, averaged generator."""

from cs_gan.gan.double_backward import fast_double_backward
from cs_gan.gan.ema import averaged
from cs_gan.gan.losses import critic_loss, generator_loss, gradient_penalty
from cs_gan.gan.steps import CODED_ON, critic_step, generator_step

__all__ = [
    "CODED_ON",
    "averaged",
    "critic_loss",
    "critic_step",
    "fast_double_backward",
    "generator_loss",
    "generator_step",
    "gradient_penalty",
]
