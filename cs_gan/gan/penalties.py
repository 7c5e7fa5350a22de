"""Penalties on a critic: one function per equation, each without its weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.core.share import mean_of_processes
from cs_gan.gan import outputs
from cs_gan.gan.double_backward import fast_double_backward
from cs_gan.precision import wide
from cs_gan.second_derivative import require_second_derivative


def gradient_penalty(critic: Callable[[Tensor], Any], real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """E[(||grad D(x^)||_2 - 1)^2] at x^ = alpha real + (1 - alpha) fake, without its weight.

    Computed in float32 (float64 stays) under any autocast, because second derivatives in half precision
    overflow. Attention uses the kernel that has second derivatives.

    Args:
        critic: (B, *F) -> (B,) scores, without batch norm (the norm is per sample). Scores of patches are summed.
        real, fake: (B, *F), the same shape; no gradient flows into them.
        alpha: (B,) in [0, 1], one for each sample.

    Raises:
        ValueError: if the shapes differ.
        BatchError, ConfigError: for images that are no tensors, or a critic that returns anything but
            scores.
        BlockError: if the critic has parts that torch.compile compiled ahead of time.

    Source: Gulrajani et al. 2017, equation 3 and algorithm 1.
    """
    outputs.require_tensors("gradient_penalty", real=real, fake=fake, alpha=alpha)
    if real.shape != fake.shape or alpha.shape != real.shape[:1]:
        raise ValueError(
            f"gradient_penalty got real {tuple(real.shape)}, fake {tuple(fake.shape)} and alpha "
            f"{tuple(alpha.shape)}: real and fake must have the same shape, and alpha one value per sample."
        )
    with torch.autocast(real.device.type, enabled=False):
        dtype = torch.promote_types(real.dtype, torch.float32)
        alpha = alpha.to(dtype).view(-1, *[1] * (real.dim() - 1))
        between = torch.lerp(fake.detach().to(dtype), real.detach().to(dtype), alpha)
        slopes: Tensor = _input_gradient("gradient_penalty", critic, between).norm(dim=1)
        return (slopes - 1).square().mean()


def r1_penalty(critic: Callable[[Tensor], Any], images: Tensor) -> Tensor:
    """E[||grad D(x)||^2] at real images (R1), or at fake ones (R2). Its weight is gamma / 2.

    Computed in float32 as :func:`gradient_penalty` is.

    Args:
        critic: (B, *F) -> (B,) scores, without batch norm.
        images: (B, *F); no gradient flows into them.

    Raises:
        BatchError, ConfigError: as :func:`gradient_penalty`.
        BlockError: if the critic has parts that torch.compile compiled ahead of time.

    Source: Mescheder et al. 2018, equation 9 (R1) and its appendix (R2).
    """
    outputs.require_tensors("r1_penalty", images=images)
    with torch.autocast(images.device.type, enabled=False):
        images = wide(images.detach())
        slopes = _input_gradient("r1_penalty", critic, images)
        return slopes.square().sum(dim=1).mean()


def _input_gradient(caller: str, critic: Callable[[Tensor], Any], images: Tensor) -> Tensor:  # (B, *F) -> (B, prod F)
    """The gradient of each score by its image, differentiable in the critic's parameters."""
    images = images.requires_grad_() if images.is_leaf and not images.requires_grad else images
    with fast_double_backward():
        scores = outputs.scores(caller, critic(images), images, per_image=True)
    require_second_derivative(caller, scores, images)
    # In this thread. On a GPU, autograd's own thread numbers these nodes with its own counter. Then the order in which
    # a parameter's gradients are added, and so their last bits, would depend on the history of the process.
    with torch.autograd.set_multithreading_enabled(False):
        (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.flatten(1)


def consistency_penalty(scores: Tensor, view_scores: Tensor) -> Tensor:  # (B,), (B,) -> ()
    """E[(D(x) - D(T(x)))^2]: an image and its augmented view T(x) should get the same score.

    On real images only, this is CR. On real and fake images, each with its own weight, it is bCR.

    Source: Zhang et al. 2020 (CR), equation 3 for the scores; Zhao et al. 2021 (bCR), algorithm 1.
    """
    return (wide(scores) - wide(view_scores)).square().mean()


def feature_norm_penalty(features: Tensor) -> Tensor:  # (B, *F) -> ()
    """E[f(x)^2], the mean square of a block's outputs.

    Ours: the control for coding that block. The coded penalty also shrinks the linear part of a block. This penalty
    only shrinks.
    """
    return wide(features).square().mean()


class LeCam(nn.Module):
    """E[(D(real) - a_F)^2] + E[(D(fake) - a_R)^2], with a_R and a_F moving averages of real and fake scores.

    The averages are buffers, so save the module in your checkpoints. With several processes they average the scores of
    all processes. The first calls use the plain mean of all scores so far. (The authors' code starts after some
    thousand steps and penalises only one side of each difference.) Each call moves the averages: where gradients are
    accumulated, each micro-batch does, so n of them need ``decay ** (1 / n)`` for the same memory in updates.

    Args:
        decay: of the averages.

    Raises:
        ValueError: for a decay outside [0, 1).

    Source: Tseng et al. 2021, equations 3 and 4.
    """

    anchors: Tensor  # (2,): a_R, a_F
    seen: Tensor  # () calls

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} must be in [0, 1): 0.99 is usual.")
        self.decay = decay
        self.register_buffer("anchors", torch.zeros(2))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, real_scores: Tensor, fake_scores: Tensor) -> Tensor:  # (B,), (B,) -> ()
        """Update the averages with the scores and return the penalty."""
        real_scores, fake_scores = wide(real_scores), wide(fake_scores)
        with torch.no_grad():
            means = mean_of_processes(torch.stack([real_scores.mean(), fake_scores.mean()])).to(self.anchors)
            self.seen += 1
            self.anchors.lerp_(means, (1 / self.seen).clamp_min(1 - self.decay))
        real, fake = self.anchors.clone()  # the next call changes them, possibly before the backward
        penalty: Tensor = (real_scores - fake).square().mean() + (fake_scores - real).square().mean()
        return penalty
