"""FGSM, PGD and EOT-PGD on whole batches. RCI mixes the batch, so no sample is dropped or reordered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cs_gan.attacks.norms import Ball, per_sample
from cs_gan.attacks.state import Forward, undisturbed
from cs_gan.errors import AttackError
from cs_gan.predictions import predicted_classes
from cs_gan.randomness import stream


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:  # (K, classes), (K,) -> (K,)
    """-log p(label), the original loss of FGSM and PGD. :func:`margin` explains its weakness."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:  # (K, classes), (K,) -> (K,)
    """The largest other logit minus the label's: above 0 for misclassified samples.

    Use this loss against a defence that mixes the batch. Cross-entropy has almost no gradient on a confident sample
    and one of order 1 on a misclassified neighbour. So the perturbation of the confident sample serves its neighbours,
    and the sample survives: false robustness. All margins have the same weight.
    """
    column = labels[:, None]
    return logits.scatter(1, column, -torch.inf).amax(1) - logits.gather(1, column)[:, 0]


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cross-entropy": cross_entropy, "margin": margin}


def check_batch(images: Tensor, labels: Tensor) -> Tensor:
    """The labels in int64.

    Raises:
        AttackError: unless the input is a non-empty batch of floating-point inputs with one class index each.
    """
    if images.dim() < 2 or len(images) == 0 or not images.is_floating_point():
        raise AttackError(
            f"images are {images.dtype} of shape {tuple(images.shape)}: give floating-point (K, C, H, W) or (K, d)."
        )
    numbers = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != images.shape[:1] or not numbers:
        raise AttackError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}: give one class index for each of the "
            f"{len(images)} images."
        )
    labels = labels.long()  # torch has no cross-entropy, gather or (for some) minimum of the shorter integers
    if labels.min() < 0:
        raise AttackError(f"the smallest label is {int(labels.min())}: classes count from 0.")
    return labels


def checked_logits(forward: Forward, images: Tensor, labels: Tensor) -> Tensor:  # (K, *F), (K,) -> (K, classes)
    """The logits. Raises AttackError unless each sample has at least two, and labels are among the classes."""
    logits = forward(images)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images) or logits.shape[1] < 2:
        description = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise AttackError(
            f"the network gave {description} for {len(images)} images: attacks need logits of shape "
            f"({len(images)}, classes) with two classes or more."
        )
    if labels.max() >= logits.shape[1]:
        raise AttackError(
            f"the largest label is {int(labels.max())}, but the network has {logits.shape[1]} classes "
            f"(0 to {logits.shape[1] - 1})."
        )
    return logits


def check_gradient(gradient: Tensor) -> None:  # (K, *F)
    """Raise AttackError if the gradient of a sample isn't finite."""
    bad = (~gradient.isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist()
    if bad:
        raise AttackError(
            f"the gradient of {len(bad)} of {len(gradient)} samples is NaN or infinite (first at {bad[:8]}): check for "
            "overflow, or a root or logarithm at 0 in the network. An attack with such gradients is meaningless."
        )


@dataclass(frozen=True)
class Objective:
    """The objective of the attack: the sum of the batch's losses, averaged over ``eot`` draws of the forward."""

    forward: Forward
    labels: Tensor
    loss: str = "cross-entropy"
    eot: int = 1

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise AttackError(f"loss={self.loss!r} is unknown: choose one of {', '.join(LOSSES)}.")
        if self.eot < 1:
            raise AttackError(f"eot={self.eot}: at least one draw of the defence is needed.")

    def gradient(self, x: Tensor) -> Tensor:  # (K, *F) -> (K, *F)
        """d/dx of the mean over draws of the summed losses; parameters' gradients stay untouched.

        Raises:
            AttackError: if the output doesn't depend on x, or the gradient isn't finite.
        """
        x = x.detach().requires_grad_()
        total = torch.zeros_like(x)
        for _ in range(self.eot):
            losses = LOSSES[self.loss](checked_logits(self.forward, x, self.labels), self.labels)
            if not losses.requires_grad:
                raise AttackError("the logits don't depend on the images: the forward detaches, or runs under no_grad.")
            (gradient,) = torch.autograd.grad(losses.sum(), x, allow_unused=True)
            if gradient is None:
                raise AttackError("the logits don't depend on the images: the forward detaches them.")
            total += gradient
        check_gradient(total)
        return total / self.eot

    @torch.no_grad()
    def harm(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (K, *F) -> (K,), (K,)
        """For each sample, the share of ``eot`` draws that misclassify it, and its mean loss.

        Logits of NaN are no class, so they misclassify the sample.
        """
        fooled = loss = torch.zeros(len(x), device=x.device)
        for _ in range(self.eot):
            logits = checked_logits(self.forward, x, self.labels)
            fooled = fooled + (predicted_classes(logits) != self.labels) / self.eot
            loss = loss + LOSSES[self.loss](logits, self.labels) / self.eot
        return fooled, loss


def fgsm(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    low: float = -1.0,
    high: float = 1.0,
    eot: int = 1,
    loss: str = "cross-entropy",
    generator: torch.Generator | None = None,
) -> Tensor:  # (K, *F), (K,) -> (K, *F)
    """One step of length eps from the images (Goodfellow et al. 2015, eq. in section 4); options of :func:`pgd`."""
    return pgd(
        forward, images, labels, eps=eps, step=eps or None, steps=1, norm=norm, low=low, high=high,
        random_start=False, eot=eot, loss=loss, generator=generator,
    )  # fmt: skip


def pgd(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    step: float | None = None,
    steps: int = 20,
    restarts: int = 1,
    norm: str = "linf",
    low: float = -1.0,
    high: float = 1.0,
    random_start: bool = True,
    eot: int = 1,
    loss: str = "cross-entropy",
    generator: torch.Generator | None = None,
) -> Tensor:  # (K, *F), (K,) -> (K, *F)
    """Projected gradient ascent on the whole batch at once; EOT-PGD with ``eot`` above 1.

    The forward sees all K samples in order at every step. The loss of each sample counts in the gradient of all. The
    last iterate of a run is kept. With several restarts, each sample's worst is kept (misclassified in most draws, then
    highest loss), unless one whole restart harms the batch more than this combination.

    Args:
        forward: (K, *F) -> logits (K, classes). A module runs in eval mode; its own mode is restored. A
            :class:`RandomizedCodedInference` draws its permutations from ``generator`` during the attack.
        images, labels: clean (K, C, H, W) or (K, d) in [low, high]; (K,) class indices.
        eps: radius in the units of the images. Ours are in [-1, 1], where 8/255 on [0, 1] is 16/255.
        step: length of a step, by default 2.5 eps / steps (Madry et al. 2018).
        norm: ``linf`` or ``l2``.
        random_start: start at a uniform point of the ball, otherwise at the images.
        eot: number of draws of the forward that one gradient averages (Athalye et al. 2018).
        loss: ``cross-entropy`` or ``margin``.
        generator: on the CPU; all random numbers of the attack come from it. By default a fixed stream.

    Raises:
        AttackError: for an unusable budget, labels or logits of wrong shape, or a gradient that isn't finite.
    """
    ball = Ball(norm, eps, low, high)
    labels = check_batch(images, labels)
    ball.check(images)
    if steps < 1 or restarts < 1 or (step is not None and not step > 0):
        raise AttackError(f"step={step}, steps={steps}, restarts={restarts}: all must be above 0.")
    if restarts > 1 and not random_start:
        raise AttackError(f"restarts={restarts} without random_start would repeat the same run. Set random_start=True.")
    generator = stream("attacks") if generator is None else generator
    with torch.inference_mode(False), torch.enable_grad(), undisturbed(images.device, generator, forward):
        objective = Objective(forward, labels.clone(), loss, eot)
        images = images.detach().clone()
        if eps == 0:
            return images
        length = 2.5 * eps / steps if step is None else step
        runs = []
        for _ in range(restarts):
            x = ball.start(images, generator) if random_start else images
            for _ in range(steps):
                x = ball.project(x + length * ball.ascent(objective.gradient(x)), images)
            runs.append(x)
        return worst_of(objective, runs)


def worst_of(objective: Objective, runs: list[Tensor]) -> Tensor:  # runs of (K, *F) -> (K, *F)
    """Each sample from the run that harms it most, or one whole run if that harms the batch more."""
    if len(runs) == 1:
        return runs[0]
    harms = [objective.harm(run) for run in runs]
    best, (fooled, loss) = runs[0], harms[0]
    for run, (other_fooled, other_loss) in zip(runs[1:], harms[1:], strict=True):
        worse = (other_fooled > fooled) | ((other_fooled == fooled) & (other_loss > loss))
        best = torch.where(per_sample(worse, best), run, best)
        fooled, loss = torch.where(worse, other_fooled, fooled), torch.where(worse, other_loss, loss)
    # If the forward mixes the batch, a sample was harmed together with the neighbours of its own run.
    totals = [_total(harm) for harm in harms]
    strongest = max(range(len(runs)), key=totals.__getitem__)
    return best if _total(objective.harm(best)) >= totals[strongest] else runs[strongest]


def _total(harm: tuple[Tensor, Tensor]) -> tuple[float, float]:
    return round(harm[0].sum().item(), 6), harm[1].sum().item()
