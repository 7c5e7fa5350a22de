"""The implementation of ``CodedSmoothing.diagnose``: run the model, split the errors, compare with the task loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.core.diagnosis.measure import Diagnosing, code_condition, ratio, stretched, untouched
from cs_gan.core.diagnosis.report import NO_EFFECT, BlockDiagnosis, Diagnosis, Finding, findings
from cs_gan.core.diagnosis.strength import ALL, strengths
from cs_gan.core.hooks import Observing
from cs_gan.core.nestings import map_leaves
from cs_gan.core.schedule import checked_weight
from cs_gan.core.selection import nothing_ran
from cs_gan.errors import CodeError

TaskLoss = float | Tensor | Callable[[Any], Tensor | float]


def diagnose(
    model: nn.Module,
    blocks: dict[str, nn.Module],
    hooks: Diagnosing,
    call: Callable[[], Any] | None,
    task_loss: TaskLoss | None,
    weight: float,
    mu: float | None,
    earlier: Diagnosis | None,
    held: float | None = None,
) -> Diagnosis:
    """The body of :meth:`CodedSmoothing.diagnose`. ``hooks`` are not installed yet; ``weight`` is the penalty's.

    With ``held`` the weight is the one that makes the penalty this share of the gradient, if it can be measured.
    """
    objective_weights(weight, mu)  # the checks come first
    if not callable(call):
        kind = "" if call is None else type(call).__name__
        raise CodeError(f"diagnose({kind}): give a function that runs the model, as in lambda: model(x).")
    with untouched(model), hooks.installed(blocks):
        call()
    if not hooks.parts:
        raise nothing_ran(model, blocks, "the call that diagnose() was given")
    observing = Observing(hooks.coding, hooks.of_training, hooks.share_dropout, {})
    loss, found_strengths = _loss(model, call, task_loss), strengths(model, blocks, observing, call, task_loss)
    if held is not None and ALL in found_strengths:
        weight = found_strengths[ALL].weight_for(held, mu) or weight
    weights = objective_weights(weight, mu)
    bounded = task_loss if callable(task_loss) and not _is_affine(model, call, task_loss) else None
    diagnosed: dict[str, BlockDiagnosis] = {}
    for name, parts in hooks.parts.items():
        penalty = hooks.penalties[name].item()
        before = earlier.blocks.get(name) if earlier else None
        widened = partial(stretched, blocks[name], hooks.coding.axes[name])
        diagnosed[name] = BlockDiagnosis(
            name,
            len(hooks.codes[name]),
            penalty,
            None if loss is None else penalty_share(loss, penalty, weights),
            parts,
            code_condition(min(hooks.codes[name], key=lambda code: code.K)),
            None if bounded is None else _headroom(model, widened, call, bounded, loss),
            before.parts.variance if before else None,
            found_strengths.get(name),
            None if name not in found_strengths else found_strengths[name].share(weights),
        )
    signatures = tuple(finding for block in diagnosed.values() for finding in findings(block))
    not_run = "it did not run in this call, and was not coded. If it runs in others, diagnose those too."
    signatures += tuple(Finding(NO_EFFECT, name, not_run) for name in blocks if name not in hooks.parts)
    together = found_strengths.get(ALL) if len(diagnosed) > 1 else None
    return Diagnosis(diagnosed, loss, *weights, signatures, mu, together, weight)


def penalty_share(task_loss: float, penalty: float, weights: tuple[float, float]) -> float:
    """|weighted penalty| / (|weighted task loss| + |weighted penalty|), or 0 if both are 0."""
    task, coded = weights[0] * abs(task_loss), weights[1] * abs(penalty)
    return ratio(coded, task + coded)


def objective_weights(weight: float, mu: float | None) -> tuple[float, float]:
    """The factors of task loss and penalty: 1 and weight, or with mu in [0, 1) (paper) 1 - mu and mu times weight."""
    weight = checked_weight(weight)
    if mu is None:
        return 1.0, weight
    if not isinstance(mu, Real) or not 0 <= mu < 1:
        raise CodeError(f"diagnose(mu={mu}): the penalty's share must be in [0, 1); leave mu out for an added weight.")
    return 1 - mu, mu * weight


def _loss(model: nn.Module, call: Callable[[], Any], task_loss: TaskLoss | None) -> float | None:
    """The task loss as a number. If it is a function, the model runs again."""
    if task_loss is None:
        return None
    value = task_loss
    if callable(task_loss):
        with untouched(model, grad=not torch.is_inference_mode_enabled()):  # a gradient penalty may be part of it
            value = task_loss(call())
    if isinstance(value, Tensor) and value.numel() != 1:
        raise CodeError(f"diagnose: task_loss has shape {tuple(value.shape)}; reduce it to one number, as by .mean().")
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise CodeError(
            f"diagnose: task_loss is a {type(value).__name__}; give a number, or a function from what the model call "
            "gives to a number."
        ) from None


def _is_affine(model: nn.Module, call: Callable[[], Any], task_loss: Callable[[Any], Any]) -> bool:
    """Whether the loss is affine in the tensors that ``call`` gives, as a WGAN critic's: it has no lower bound then."""

    def at(factor: float) -> float:
        def scale(leaf: Any) -> Any:
            return factor * leaf if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dim() else leaf

        with untouched(model, grad=not torch.is_inference_mode_enabled()):  # the same draws in each
            value = task_loss(map_leaves(scale, call()))
            return float(value.detach() if isinstance(value, Tensor) else value)

    # Factors below 1 keep probabilities valid. A hinge loss is affine near its outputs, but not far away.
    half, three_quarters, one = at(0.5), at(0.75), at(1.0)
    slope = (one - half) / 0.5
    return (
        slope != 0
        and math.isclose(one - three_quarters, 0.25 * slope, rel_tol=1e-3)
        and math.isclose(at(1e4) - one, (1e4 - 1) * slope, rel_tol=1e-3)
    )


def _headroom(
    model: nn.Module,
    widened: Callable[[float], AbstractContextManager[None]],
    call: Callable[[], Any],
    task_loss: TaskLoss,
    loss: float | None,
) -> float | None:
    """(T(1) - T(2)) / T(0), where T(s) is the task loss with the block's outputs stretched by s."""
    with widened(2.0):
        wide = _loss(model, call, task_loss)
    with widened(0.0):
        constant = _loss(model, call, task_loss)
    if loss is None or wide is None or constant is None:
        return None
    return (loss - wide) / constant if loss > 0 and constant > 0 else None
