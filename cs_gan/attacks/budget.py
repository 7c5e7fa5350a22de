"""The attacker's budget: the ball, the attack and its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cs_gan.attacks import autoattack
from cs_gan.attacks.gradient import LOSSES, fgsm, pgd
from cs_gan.attacks.norms import Ball
from cs_gan.attacks.state import Forward
from cs_gan.errors import AttackError

ATTACKS = ("fgsm", "pgd", "apgd-ce", "apgd-dlr", "rand")


@dataclass(frozen=True)
class Budget:
    """The attacker's budget.

    Args:
        eps, norm, low, high: the ball, in the units of the images; see :class:`Ball`.
        attack: ``fgsm``, ``pgd``, or with pyautoattack ``apgd-ce``, ``apgd-dlr``, ``rand``; the threat
            ``square`` uses none of them.
        steps, step, restarts, loss: as for :func:`pgd` (APGD ignores ``step`` and ``loss``). The margin is the
            default, because cross-entropy overrates a defence that mixes the batch (see :func:`margin`).
        eot: draws per gradient for the batch threats; ``eot-n`` and ``rand`` have their own number.
        queries: number of queries for ``square``.

    Raises:
        AttackError: for an unknown attack or norm, eps below 0, or a count below 1.
    """

    eps: float
    norm: str = "linf"
    attack: str = "pgd"
    steps: int = 20
    step: float | None = None
    restarts: int = 1
    eot: int = 5
    queries: int = 1000
    loss: str = "margin"
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        Ball(self.norm, self.eps, self.low, self.high)
        if self.loss not in LOSSES:
            raise AttackError(f"loss={self.loss!r} is unknown: choose one of {', '.join(LOSSES)}.")
        if self.attack not in ATTACKS:
            raise AttackError(f"attack={self.attack!r} is unknown: choose one of {', '.join(ATTACKS)}.")
        if min(self.steps, self.restarts, self.eot, self.queries) < 1:
            raise AttackError(
                f"steps={self.steps}, restarts={self.restarts}, eot={self.eot}, queries={self.queries}: "
                "all must be 1 or more."
            )

    def run(
        self, forward: Forward, images: Tensor, labels: Tensor, generator: torch.Generator, eot: int = 1
    ) -> Tensor:  # (K, *F), (K,) -> (K, *F)
        """The attack on a batch through a forward."""
        common: dict[str, Any] = {name: getattr(self, name) for name in ("eps", "norm", "low", "high")}
        common["generator"] = generator
        if self.attack == "fgsm":
            return fgsm(forward, images, labels, eot=eot, loss=self.loss, **common)
        if self.attack == "rand":
            return autoattack.rand(forward, images, labels, steps=self.steps, **common)
        common |= {"steps": self.steps, "restarts": self.restarts, "eot": eot}
        if self.attack == "pgd":
            return pgd(forward, images, labels, step=self.step, loss=self.loss, **common)
        return autoattack.apgd(forward, images, labels, loss=self.attack.removeprefix("apgd-"), **common)
