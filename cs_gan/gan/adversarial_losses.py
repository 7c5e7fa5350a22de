"""Adversarial losses: one function per equation, and four pairs of critic and generator loss by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu, softplus

# -- Wasserstein -----------------------------------------------------------------------------------


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:  # (B,), (B,) -> ()
    """E[D(fake)] - E[D(real)]: minus the critic's estimate of the Wasserstein distance.

    Source: Arjovsky et al. 2017, equation 3; Gulrajani et al. 2017, equation 3 without its last term.
    """
    return fake_scores.mean() - real_scores.mean()


def generator_loss(fake_scores: Tensor) -> Tensor:  # (B,) -> ()
    """-E[D(G(z))]. Source: Arjovsky et al. 2017, algorithm 1. The hinge loss has the same generator."""
    return -fake_scores.mean()


# -- hinge -----------------------------------------------------------------------------------------


def hinge_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:  # (B,), (B,) -> ()
    """E[max(0, 1 - D(real))] + E[max(0, 1 + D(fake))].

    Source: Lim and Ye 2017; Miyato et al. 2018 (SNGAN), equations 16 and 17.
    """
    return relu(1 - real_scores).mean() + relu(1 + fake_scores).mean()


# -- non-saturating --------------------------------------------------------------------------------


def non_saturating_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:  # (B,), (B,) -> ()
    """-E[log s(D(real))] - E[log(1 - s(D(fake)))], with s the logistic function.

    Source: Goodfellow et al. 2014, equation 1, for scores that are logits.
    """
    return softplus(-real_scores).mean() + softplus(fake_scores).mean()


def non_saturating_generator_loss(fake_scores: Tensor) -> Tensor:  # (B,) -> ()
    """-E[log s(D(G(z)))]. Source: Goodfellow et al. 2014, section 3."""
    return softplus(-fake_scores).mean()


# -- relativistic ----------------------------------------------------------------------------------


def relativistic_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:  # (B,), (B,) -> ()
    """E[softplus(D(fake) - D(real))] over pairs of a real and a fake image.

    Source: Jolicoeur-Martineau 2019 (RpGAN); Huang et al. 2024 (R3GAN), equation 2 with f(t) = -log(1 + e^-t).
    """
    return softplus(fake_scores - real_scores).mean()


def relativistic_generator_loss(fake_scores: Tensor, real_scores: Tensor) -> Tensor:  # (B,), (B,) -> ()
    """E[softplus(D(real) - D(fake))]: the critic's loss with real and fake exchanged. Same source."""
    return relativistic_critic_loss(fake_scores, real_scores)


# -- by name ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AdversarialLoss:
    """The losses of critic and generator.

    Attributes:
        critic: (real scores, fake scores) -> ().
        generator: fake scores -> (), or if ``paired``, (fake scores, real scores) -> ().
        paired: whether each fake score is paired with a real one. Both batches must then have the same size.
    """

    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[..., Tensor]
    paired: bool = False


LOSSES = {
    "wasserstein": AdversarialLoss(critic_loss, generator_loss),
    "hinge": AdversarialLoss(hinge_critic_loss, generator_loss),
    "non-saturating": AdversarialLoss(non_saturating_critic_loss, non_saturating_generator_loss),
    "relativistic": AdversarialLoss(relativistic_critic_loss, relativistic_generator_loss, paired=True),
}
"""The losses by name, as :func:`~cs_gan.gan.critic_step` and ``training.loss`` take it."""


def adversarial_loss(name: str) -> AdversarialLoss:
    """One of :data:`LOSSES`; ValueError for an unknown name."""
    if name not in LOSSES:
        raise ValueError(f"loss={name!r} is unknown: choose one of {', '.join(LOSSES)}.")
    return LOSSES[name]
