"""How strong the penalty is: its gradient beside that of the task loss, on the parameters that both touch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.core.diagnosis.measure import ratio, untouched
from cs_gan.core.hooks import Observing
from cs_gan.core.share import gradient_norms

SHARES = (0.01, 0.05, 0.1)
"""The shares for which a report proposes weights."""


ALL = "*"
"""The key of all blocks together. No module has this name."""


@dataclass(frozen=True)
class Strength:
    """The gradients of one penalty and of the task loss.

    Attributes:
        trains: whether the penalty has a gradient.
        penalty: norm of the gradient of the unweighted penalty.
        task: norm of the gradient of the unweighted task loss; None without one that has a graph.
    """

    trains: bool
    penalty: float = 0.0
    task: float | None = None

    def share(self, weights: tuple[float, float]) -> float | None:
        """The weighted penalty's gradient over the weighted task loss's. None without a task loss."""
        return None if self.task is None else ratio(weights[1] * self.penalty, weights[0] * self.task)

    def weight_for(self, share: float, mu: float | None) -> float:
        """The weight that makes the penalty this share of the gradient; 0 if none does."""
        task = share * (self.task or 0.0)
        return ratio(task, self.penalty) if mu is None else ratio((1 - mu) * task, mu * self.penalty)

    def proposals(self, weight: float, mu: float | None) -> Iterator[float]:
        """The weight for each of ``SHARES``, or with mu, the mu."""
        for share in SHARES:
            if mu is None:
                yield self.weight_for(share, None)
            else:  # mu weight penalty = share (1 - mu) task
                task = share * (self.task or 0.0)
                yield ratio(task, weight * self.penalty + task)


def strengths(
    model: nn.Module, blocks: dict[str, nn.Module], hooks: Observing, call: Callable[[], Any], task_loss: Any
) -> dict[str, Strength]:
    """Of every block that runs, and under ``ALL`` of all together. Empty where no gradients can be computed.

    Args:
        hooks: not installed yet.
        task_loss: as for ``diagnose``; a tensor with a graph keeps it.
    """
    if torch.is_inference_mode_enabled():
        return {}
    with untouched(model, grad=True):
        with hooks.installed(blocks):
            output = call()
        loss = task_loss(output) if callable(task_loss) else task_loss
        if not (isinstance(loss, Tensor) and loss.requires_grad and loss.numel() == 1):
            loss = None
        parameters = list(model.parameters())
        penalties = {**hooks.penalties, ALL: torch.stack(list(hooks.penalties.values())).sum()}
        return {name: _strength(penalty, loss, parameters) for name, penalty in penalties.items()}


def _strength(penalty: Tensor, loss: Tensor | None, parameters: list[nn.Parameter]) -> Strength:
    if not penalty.requires_grad:
        return Strength(False)
    trainable = [each for each in parameters if each.requires_grad]
    slopes = torch.autograd.grad(penalty, trainable, retain_graph=True, allow_unused=True) if trainable else ()
    if all(slope is None for slope in slopes):
        return Strength(False)
    penalty_norm = gradient_norms(penalty, penalty, parameters)[0].item()
    if loss is None or not penalty_norm:
        return Strength(True, penalty_norm)
    norms = gradient_norms(penalty, loss.sum(), parameters)
    return Strength(True, *norms.tolist())
