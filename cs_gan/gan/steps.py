"""One critic update and one generator update, as functions of everything they use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cs_gan.core import CodedSmoothing
from cs_gan.core.share import coded_objective
from cs_gan.core.update import Backward, MicroBatch, StepLosses, Update
from cs_gan.errors import ConfigError
from cs_gan.gan import outputs
from cs_gan.gan.adversarial_losses import adversarial_loss
from cs_gan.gan.conditional import conditioned
from cs_gan.gan.spectral import computed_once
from cs_gan.gan.terms import GradientPenalty, ScoredBatch, Term

NAMES = {"coded": "{}_coded", "coded_share": "{}_share"}
CODED_ON = ("real", "fake", "both")


def critic_step(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    real: Tensor,
    fake: Tensor,
    alpha: Tensor,
    *,
    labels: Tensor | None = None,
    loss: str = "wasserstein",
    penalty_weight: float = 10.0,
    terms: Sequence[Term] = (),
    coded: CodedSmoothing | None = None,
    coded_on: str = "real",
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    backward: Backward = torch.Tensor.backward,
    micro_batch: MicroBatch = (1, 1),
    measure_share: bool = False,
) -> StepLosses:
    """One update of the critic: adversarial loss, penalties and coded penalty in one backward.

    Args:
        critic: plain or wrapped in DistributedDataParallel; (B, C, H, W) -> (B,) scores. (B, 1) and patches work too.
        real, fake: (B, C, H, W), as the critic sees them (already augmented); ``fake`` without a graph.
        alpha: (B,) uniform in [0, 1].
        labels: (B,) classes, for a critic that takes (images, labels). The fake images are of the same classes, so that
            an image between two has one too.
        loss: a name in ``LOSSES``.
        penalty_weight: weight of the gradient penalty; at 0 it isn't computed.
        terms: further terms of the loss, such as ``ZeroCentred(0.1)`` or ``Consistency(10, view)``. The second of one
            name is ``<name>_2`` among the losses.
        coded: attached to blocks of the critic, or None; its ``weight`` applies.
        coded_on: which images the coded blocks observe: ``real``, ``fake`` or ``both``.
        autocast: a context for the forward passes; second derivatives stay in float32.
        backward: differentiates the loss (``accelerator.backward``).
        micro_batch: (i, n) for the i-th of n micro-batches of one update; coding mixes only within a micro-batch, so K
            is its size. Inside ``accelerator.accumulate`` leave it out (:class:`~cs_gan.core.update.Update`).
        measure_share: also measure the coded penalty's share of the gradient (:meth:`CodedSmoothing.share`), and that
            of a term whose weight holds a share.

    Returns:
        Detached scalars of this (micro-)batch: critic_loss (with all penalties except the coded one, so plain and coded
        runs can be compared) and wasserstein (E[D(real)] - E[D(fake)], an estimate of that distance under the
        Wasserstein loss). Where they were computed, also unweighted: gradient_penalty, each term under its name, and
        critic_coded; and critic_share, and the share of a term that holds one.

    Raises:
        BatchError: if real, fake or alpha is no tensor.
        ConfigError: if the critic returns anything but scores, for an unknown coded_on, an unusable micro_batch, or a
            GradientPenalty in ``terms`` beside ``penalty_weight``.
    """
    outputs.require_tensors("critic_step", real=real, fake=fake, alpha=alpha)
    if coded_on not in CODED_ON:
        raise ConfigError(f"critic_step(coded_on={coded_on!r}): choose one of {', '.join(CODED_ON)}.")
    update = Update("critic_step", optimizer, micro_batch)
    images = {"real": real, "fake": fake}
    named = _named([*terms, *_default_penalty(penalty_weight, alpha, terms)])
    # All forwards except those for second derivatives go through the wrapper, which prepares the exchange of gradients.
    # Only the bare module accepts a float32 pass outside autocast.
    bare = critic.module if isinstance(critic, DistributedDataParallel) else critic
    judge, bare_judge = conditioned(critic, labels), conditioned(bare, labels)
    with computed_once(bare):
        scores = _scores(judge, bare, images, named.values(), coded, coded_on, autocast)
        total = adversarial_loss(loss).critic(scores["real"], scores["fake"])
        batch = ScoredBatch(judge, bare_judge, images, scores, autocast)
        penalties = {name: term(batch) for name, term in named.items()}
        for name, term in named.items():
            weighted = term.weighted(penalties[name])
            if term.held and measure_share:
                penalties[f"{name}_share"] = term.held.follow(weighted, total, bare.parameters())
            total = total + weighted
        objective, measured = coded_objective(total, coded, bare, measure_share)
        update.backward(backward, objective)
    update.finish()
    difference = scores["real"].mean() - scores["fake"].mean()
    losses = {"critic_loss": total, **penalties, "wasserstein": difference}
    return _detached(losses, "critic", measured)


def _default_penalty(weight: float, alpha: Tensor, terms: Sequence[Term]) -> list[Term]:
    """The gradient penalty of ``penalty_weight``, if it has a weight."""
    if weight and any(isinstance(term, GradientPenalty) for term in terms):
        raise ConfigError(
            f"critic_step got a GradientPenalty in terms, and penalty_weight={weight} adds another: leave it out of "
            "terms, or give penalty_weight=0."
        )
    return [GradientPenalty(weight, alpha)] if weight else []


def _named(terms: Sequence[Term]) -> dict[str, Term]:
    """The terms by the names of their losses. The second of a name is ``<name>_2``."""
    named: dict[str, Term] = {}
    for term in terms:
        name, number = term.name, 1
        while name in named:
            number += 1
            name = f"{term.name}_{number}"
        named[name] = term
    # A held share is that of the gradient of all others, which come first.
    return dict(sorted(named.items(), key=lambda item: item[1].held is not None))


def _scores(
    judge: Callable[[Tensor], Any],
    bare: nn.Module,
    images: dict[str, Tensor],
    terms: Iterable[Term],
    coded: CodedSmoothing | None,
    coded_on: str,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> dict[str, Tensor]:
    """(B,) float32 each. The images that the coded blocks observe come first."""

    def score(name: str) -> Tensor:
        with ExitStack() as watching:
            for term in terms if name == "real" else ():
                watching.enter_context(term.watching(bare))
            return outputs.scores("critic_step", judge(images[name]), images[name])

    with autocast():
        with coded.observe() if coded else nullcontext():
            scores = {name: score(name) for name in images if coded_on in (name, "both")}
        scores |= {name: score(name) for name in images if name not in scores}
    return {name: value.float() for name, value in scores.items()}


def generator_step(
    generator: nn.Module,
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    latents: Tensor,
    *,
    labels: Tensor | None = None,
    loss: str = "wasserstein",
    real: Tensor | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    coded: CodedSmoothing | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    backward: Backward = torch.Tensor.backward,
    micro_batch: MicroBatch = (1, 1),
    measure_share: bool = False,
) -> StepLosses:
    """One update of the generator; the critic is frozen, which saves a third of its backward.

    Args:
        generator: plain or wrapped; (B, L) -> (B, C, H, W).
        critic: the bare module, not a wrapper, because its gradients are not exchanged here.
        latents: (B, L).
        labels: (B,) classes, for networks that take them as second argument. Paired real images are of the same ones.
        loss: a name of ``LOSSES``.
        real: (B, C, H, W), already augmented, for the relativistic loss; other losses ignore it.
        augment: applied to the fake images before the critic sees them, differentiable.
        coded: attached to blocks of the generator, or None.
        autocast, backward, micro_batch, measure_share: as in :func:`critic_step`.

    Returns:
        Detached scalars: generator_loss (without the coded penalty), generator_coded where it was observed, and
        generator_share where it was measured.

    Raises:
        ValueError: if a paired loss does not get as many real images as latents.
        ConfigError: if the generator returns anything but images or the critic anything but scores, or for an unusable
            micro_batch.
    """
    objective = adversarial_loss(loss)
    if objective.paired and (real is None or len(real) != len(latents)):
        raise ValueError(
            f"generator_step with the {loss} loss got {len(latents)} latents and "
            f"{'no' if real is None else len(real)} real images: this loss pairs them, so give the same number of both."
        )
    update = Update("generator_step", optimizer, micro_batch)
    judge = conditioned(critic, labels)
    trained = [parameter for parameter in critic.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        with computed_once(critic):
            with autocast():
                with coded.observe() if coded else nullcontext():
                    fake = outputs.images("generator_step", conditioned(generator, labels)(latents))
                image_batches = [augment(fake) if augment else fake]
                if objective.paired and real is not None:
                    image_batches.append(real)
                scores = [outputs.scores("generator_step", judge(images), images).float() for images in image_batches]
            total = objective.generator(*scores)
            weighted, measured = coded_objective(total, coded, generator, measure_share)
            update.backward(backward, weighted)
        update.finish()
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return _detached({"generator_loss": total}, "generator", measured)


def _detached(losses: StepLosses, part: str, measured: StepLosses) -> StepLosses:
    """All of them without graphs; what was measured of coding gets the name of its part."""
    named = {NAMES[name].format(part): value for name, value in measured.items()}
    return {name: value.detach() for name, value in (losses | named).items()}
