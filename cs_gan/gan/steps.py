"""One update of the critic and one of the generator, as functions of everything they use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cs_gan.core import CodedSmoothing
from cs_gan.gan.losses import critic_loss, generator_loss, gradient_penalty

Backward = Callable[[Tensor], Any]
Losses = dict[str, Tensor]

CODED_ON = ("real", "fake", "both")


def critic_step(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    real: Tensor,
    fake: Tensor,
    alpha: Tensor,
    *,
    penalty_weight: float = 10.0,
    coded: CodedSmoothing | None = None,
    coded_on: str = "real",
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    backward: Backward = torch.Tensor.backward,
) -> Losses:
    """One update of the critic: Wasserstein loss, gradient penalty and coded penalty in one backward.

    Args:
        critic: plain or wrapped in DistributedDataParallel.
        real, fake: (B, C, H, W); ``fake`` without a graph.
        alpha: (B,) uniform in [0, 1].
        penalty_weight: of the gradient penalty.
        coded: attached to blocks of the critic, or None; its own weight applies.
        coded_on: which scores the coded blocks observe: ``real``, ``fake`` or ``both``.
        autocast: a context for the forward passes; the gradient penalty stays in float32.
        backward: what differentiates the loss (``accelerator.backward``).

    Returns:
        Detached scalars: critic_loss (with the gradient penalty, without the coded one, so that plain and
        coded runs compare), gradient_penalty, wasserstein (the estimate of the distance), and critic_coded
        (the coded penalty before its weight) where it was observed.
    """
    optimizer.zero_grad(set_to_none=True)
    batches = {"real": real, "fake": fake}
    with autocast():
        with coded.observe() if coded else nullcontext():
            scores = {name: critic(x) for name, x in batches.items() if coded_on in (name, "both")}
        scores |= {name: critic(x) for name, x in batches.items() if name not in scores}
    loss = critic_loss(scores["real"].float(), scores["fake"].float())
    # Every forward before this one went through the wrapper, which readies the gradients' exchange;
    # the bare module is the one that accepts a float32 pass outside autocast.
    bare = critic.module if isinstance(critic, DistributedDataParallel) else critic
    slope = gradient_penalty(bare, real, fake, alpha)
    total = loss + penalty_weight * slope
    backward(total + coded.penalty() if coded else total)
    optimizer.step()
    return _detached({"critic_loss": total, "gradient_penalty": slope, "wasserstein": -loss}, "critic_coded", coded)


def generator_step(
    generator: nn.Module,
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    latents: Tensor,
    *,
    coded: CodedSmoothing | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    backward: Backward = torch.Tensor.backward,
) -> Losses:
    """One update of the generator; the critic is frozen, which spares a third of its backward.

    Args:
        generator: plain or wrapped; (B, L) -> (B, C, H, W).
        critic: the bare module, not a wrapper, since its gradients are not exchanged here.
        latents: (B, L).
        coded: attached to blocks of the generator, or None.
        autocast, backward: as in :func:`critic_step`.

    Returns:
        Detached scalars: generator_loss (without the coded penalty), and generator_coded where it was observed.
    """
    optimizer.zero_grad(set_to_none=True)
    trained = [parameter for parameter in critic.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        with autocast():
            with coded.observe() if coded else nullcontext():
                fake = generator(latents)
            loss = generator_loss(critic(fake).float())
        backward(loss + coded.penalty() if coded else loss)
        optimizer.step()
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return _detached({"generator_loss": loss}, "generator_coded", coded)


def _detached(losses: Losses, name: str, coded: CodedSmoothing | None) -> Losses:
    if coded and coded.penalties:
        losses[name] = torch.stack(list(coded.penalties.values())).sum()
    return {key: value.detach() for key, value in losses.items()}
