"""Wasserstein losses and the gradient penalty: one function per equation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cs_gan.core.compiled import require_second_derivative
from cs_gan.gan.double_backward import fast_double_backward


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:  # (B,), (B,) -> ()
    """E[D(fake)] - E[D(real)]: minus the critic's estimate of the Wasserstein distance.

    Source: Arjovsky et al. 2017, equation 3; Gulrajani et al. 2017, equation 3 without its last term.
    """
    return fake_scores.mean() - real_scores.mean()


def generator_loss(fake_scores: Tensor) -> Tensor:  # (B,) -> ()
    """-E[D(G(z))]. Source: Arjovsky et al. 2017, algorithm 1."""
    return -fake_scores.mean()


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """E[(||grad D(x^)||_2 - 1)^2] at x^ = alpha real + (1 - alpha) fake, without its weight.

    Computed in float32 (float64 stays) whatever autocast is around: second derivatives in half precision
    overflow.

    Args:
        critic: (B, *F) -> (B,) scores, without batch norm (the norm is per sample).
        real, fake: (B, *F), the same shape; no gradient flows into them.
        alpha: (B,) in [0, 1], one for each sample.

    Raises:
        ValueError: if the shapes differ.
        BlockError: if the critic has parts that torch.compile compiled ahead of time.

    Source: Gulrajani et al. 2017, equation 3 and algorithm 1.
    """
    if real.shape != fake.shape or alpha.shape != real.shape[:1]:
        raise ValueError(
            f"gradient_penalty got real {tuple(real.shape)}, fake {tuple(fake.shape)} and alpha "
            f"{tuple(alpha.shape)}: real and fake must have one shape, and alpha one value a sample."
        )
    with torch.autocast(real.device.type, enabled=False):
        dtype = torch.promote_types(real.dtype, torch.float32)
        alpha = alpha.to(dtype).view(-1, *[1] * (real.dim() - 1))
        between = torch.lerp(fake.detach().to(dtype), real.detach().to(dtype), alpha).requires_grad_()
        with fast_double_backward():
            scores = critic(between)
        require_second_derivative("gradient_penalty", scores, between)
        # In this thread: on a GPU, autograd's own numbers these nodes in a count of its own. The order in which the
        # gradients of a parameter are added up, and so their last bits, would depend on the history of the process.
        with torch.autograd.set_multithreading_enabled(False):
            (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
        slopes: Tensor = gradient.flatten(1).norm(dim=1)
        return (slopes - 1).square().mean()
