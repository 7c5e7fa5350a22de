"""AutoAttack's APGD, Square and ``rand`` by pyautoattack (Croce and Hein 2020), on whole batches.

Its ``perturb`` drops samples once they are misclassified. A defence that mixes the batch would then see another batch.
So its single runs are called directly. APGD's run keeps the batch whole. Square's run does if no sample ever counts as
fooled; it then keeps lowering each margin. Inputs are scaled to [0, 1] in float32. Global generators are seeded for it
and restored afterwards.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cs_gan.attacks.gradient import Objective, check_batch, check_gradient, checked_logits, worst_of
from cs_gan.attacks.norms import Ball
from cs_gan.attacks.state import Forward, undisturbed
from cs_gan.errors import AttackError
from cs_gan.randomness import stream

_PYAUTOATTACK_NORM = {"linf": "Linf", "l2": "L2"}
# AutoAttack's own version "rand": these losses, this many draws per gradient, one restart each.
RAND_LOSSES, RAND_EOT = ("ce", "dlr"), 20


@dataclass(frozen=True)
class _Pinned:
    """The forward as pyautoattack sees it: inputs in [0, 1], float32 logits, always the same batch."""

    forward: Forward
    ball: Ball
    images: Tensor
    labels: Tensor
    eot: int = 1

    def __call__(self, unit: Tensor) -> Tensor:
        if unit.shape != self.images.shape:
            raise AttackError(
                f"pyautoattack passed a batch of {tuple(unit.shape)} instead of {tuple(self.images.shape)}: this "
                "version also drops samples elsewhere. Install pyautoattack 0.2."
            )
        x = self.scaled(unit)
        if x.requires_grad:
            # The sign of NaN is 0: APGD would leave such an image alone, and find the network robust.
            x.register_hook(check_gradient)
        logits = sum(checked_logits(self.forward, x, self.labels) for _ in range(self.eot))
        assert isinstance(logits, Tensor)
        return (logits / self.eot).float()  # a new tensor: Square writes into it

    def unit(self) -> Tensor:
        unit = (self.images - self.ball.low) / (self.ball.high - self.ball.low)
        return unit.float().contiguous()  # pyautoattack can't view channels_last as rows

    def scaled(self, unit: Tensor) -> Tensor:
        return (unit * (self.ball.high - self.ball.low) + self.ball.low).to(self.images.dtype)

    @torch.no_grad()
    def classes(self) -> int:
        return self(self.unit()).shape[1]

    def options(self) -> dict[str, Any]:
        eps = self.ball.eps / (self.ball.high - self.ball.low)
        return {"norm": _PYAUTOATTACK_NORM[self.ball.norm], "eps": eps, "device": self.images.device}


def apgd(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 100,
    restarts: int = 1,
    eot: int = 1,
    loss: str = "ce",
    low: float = -1.0,
    high: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:  # (K, *F), (K,) -> (K, *F)
    """Auto-PGD on the whole batch. Arguments as for :func:`cs_gan.attacks.pgd`.

    Each restart gives its point of highest loss and its last misclassified point. For each sample, the worst of all
    these points over ``eot`` more draws is kept.

    Args:
        loss: ``ce`` or ``dlr`` (which needs three classes).

    Raises:
        AttackError: without pyautoattack, or as in :func:`cs_gan.attacks.pgd`.
    """
    if loss not in RAND_LOSSES:
        raise AttackError(f"loss={loss!r} is unknown to APGD: choose ce or dlr.")
    if steps < 1 or restarts < 1 or eot < 1:
        raise AttackError(f"steps={steps}, restarts={restarts}, eot={eot}: all must be above 0.")
    ball, APGDAttack = Ball(norm, eps, low, high), _load("autopgd_base", "APGDAttack")
    with _attacking(forward, images, labels, ball, generator) as pinned:
        if eps == 0:
            return pinned.images
        classes = pinned.classes()
        if loss == "dlr" and classes < 3:
            raise AttackError(f"the DLR loss needs three classes, the network has {classes}: use loss='ce'.")
        attack = APGDAttack(
            pinned, n_iter=steps, eot_iter=eot, loss=loss, logger=logging.getLogger(__name__), **pinned.options()
        )
        attack.init_hyperparam(pinned.unit())
        points = []
        for _ in range(restarts):
            highest, accurate, _, fooled = attack.attack_single_run(pinned.unit(), pinned.labels)
            points.append(highest)
            if not accurate.all():
                points.append(fooled)
        return _worst(pinned, points, eot)


def square(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    queries: int = 5000,
    restarts: int = 1,
    eot: int = 1,
    low: float = -1.0,
    high: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:  # (K, C, H, W), (K,) -> (K, C, H, W)
    """Square Attack, black box: logits only, no gradient. Arguments as for :func:`cs_gan.attacks.pgd`.

    Args:
        queries: number of queries of the whole batch; all are used, because no sample is dropped.
        eot: number of draws whose logits one query averages.

    Raises:
        AttackError: without pyautoattack, for inputs other than (K, C, H, W), or as in :func:`cs_gan.attacks.pgd`.
    """
    if queries < 1 or restarts < 1 or eot < 1:
        raise AttackError(f"queries={queries}, restarts={restarts}, eot={eot}: all must be above 0.")
    smallest = 5 if norm == "l2" else 2
    if images.dim() != 4 or min(images.shape[2:]) < smallest:
        raise AttackError(
            f"images have shape {tuple(images.shape)}: Square moves squares of pixels, in {norm} on (K, C, H, W) "
            f"with sides of {smallest} pixels or more."
        )
    ball, SquareAttack = Ball(norm, eps, low, high), _load("square", "SquareAttack")
    with _attacking(forward, images, labels, ball, generator, eot) as pinned, torch.no_grad():
        if eps == 0:
            return pinned.images
        attack = SquareAttack(pinned, n_queries=queries, **pinned.options())
        measure = attack.margin_and_loss

        def never_fooled(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            margin, loss = measure(x, y)
            # Logits of NaN are no class, so the sample is as wrong as it can be. Square would drop it.
            margin, loss = (score.nan_to_num(torch.finfo(score.dtype).min) for score in (margin, loss))
            return margin.clamp_min(torch.finfo(margin.dtype).tiny), loss

        attack.margin_and_loss = never_fooled
        attack.init_hyperparam(pinned.unit())
        points = [attack.attack_single_run(pinned.unit(), pinned.labels)[1] for _ in range(restarts)]
        return _worst(pinned, points, 1)


def rand(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 100,
    low: float = -1.0,
    high: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:  # (K, *F), (K,) -> (K, *F)
    """AutoAttack's version for randomised defences: APGD on cross-entropy and on DLR, 20 draws per gradient.

    DLR is left out for networks with two classes. Score the result on fresh permutations. AutoAttack's own figure
    would be for the same draws that it used to choose the result.
    """
    ball = Ball(norm, eps, low, high)
    with _attacking(forward, images, labels, ball, generator) as pinned:
        generator = stream("attacks") if generator is None else generator
        losses = RAND_LOSSES if pinned.classes() > 2 else RAND_LOSSES[:1]
        points = [
            apgd(
                forward, images, labels, eps=eps, norm=norm, steps=steps, eot=RAND_EOT, loss=loss,
                low=low, high=high, generator=generator,
            )
            for loss in losses
        ]  # fmt: skip
        return worst_of(Objective(pinned.forward, pinned.labels, eot=RAND_EOT), points)


@contextmanager
def _attacking(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    ball: Ball,
    generator: torch.Generator | None,
    eot: int = 1,
) -> Iterator[_Pinned]:
    labels = check_batch(images, labels)
    ball.check(images)
    if not (-torch.inf < ball.low and ball.high < torch.inf):
        raise AttackError(f"low={ball.low}, high={ball.high}: AutoAttack needs inputs in a finite range.")
    generator = stream("attacks") if generator is None else generator
    with torch.inference_mode(False), torch.enable_grad(), undisturbed(images.device, generator, forward):
        yield _Pinned(forward, ball, images.detach().clone(), labels.clone(), eot)


def _worst(pinned: _Pinned, points: list[Tensor], eot: int) -> Tensor:
    """The worst of points in [0, 1], in the units of the images and exactly in the ball."""
    runs = [pinned.ball.project(pinned.scaled(point.detach()), pinned.images) for point in points]
    return worst_of(Objective(pinned.forward, pinned.labels, eot=eot), runs)


def _load(module: str, name: str) -> Any:
    """A class of pyautoattack, which is an optional dependency.

    Raises:
        AttackError: if it isn't installed.
    """
    try:
        return getattr(importlib.import_module(f"pyautoattack.{module}"), name)
    except ImportError as error:
        raise AttackError(f'APGD and Square come with pyautoattack: pip install "cs-gan[attacks]" ({error})') from error
