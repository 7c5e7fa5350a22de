"""One update of a classifier, as a function of everything it uses.

The objective is (1 - mu) (task + weighted penalties) + mu coded penalty, the paper's combination; with
everything off it is empirical risk minimisation (ERM), and with mu = 0 a coded penalty is measured and not
used. On steps that a lazy ``coded`` skips the factor (1 - mu) stays, and on the others its penalty counts
``every`` times: the mean gradient over ``every`` steps is then the one of coding each of them, and the task
weighs the same in all. The Jacobian is taken at what the model was called with, so after a mix of inputs.

What is random in the mix and in the Jacobian's projections comes from the step's own generator, so a step
is a function of weights, batch and that generator's seed. Dropout draws from torch's global generators.
:func:`draw_step` does the drawing apart, on the host; what is left is a function of tensors, which a CUDA graph
can hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cs_gan.core import CodedSmoothing
from cs_gan.core.batch import Discrepancy
from cs_gan.errors import BatchError, ConfigError
from cs_gan.supervised.losses import cross_entropy, jacobian_penalty, logit_norm_penalty
from cs_gan.supervised.mixes import Mix, MixDraw, Mixed

Backward = Callable[[Tensor], Any]
Losses = dict[str, Tensor]

AGAINST = ("outputs", "labels")
"""What decoded outputs can be compared with."""


@dataclass(frozen=True)
class StepDraw:
    """What is random in one step.

    Attributes:
        mix: of this batch; None where it isn't mixed.
        projections: (K, C) of the Jacobian; None without it.
    """

    mix: MixDraw | None = None
    projections: Tensor | None = None


def draw_step(
    generator: torch.Generator,
    model: nn.Module,
    shape: Sequence[int],
    num_classes: int,
    mix: Mix | None = None,
    jacobian: float = 0.0,
) -> StepDraw:
    """What :func:`classifier_step` would draw from this generator for a batch of this shape, (K, *F)."""
    mixed = mix.draw(model, shape, generator) if mix is not None and mix.applies(generator) else None
    return StepDraw(mixed, torch.randn(shape[0], num_classes, generator=generator) if jacobian else None)


def classifier_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    generator: torch.Generator | StepDraw,
    num_classes: int,
    mix: Mix | None = None,
    label_smoothing: float = 0.0,
    logit_norm: float = 0.0,
    jacobian: float = 0.0,
    coded: CodedSmoothing | None = None,
    mu: float = 0.0,
    against: str = "outputs",
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    backward: Backward = torch.Tensor.backward,
    max_grad_norm: float | None = None,
) -> Losses:
    """One update by one backward of (1 - mu) (task + penalties) + mu coded penalty.

    Args:
        model: plain or wrapped in DistributedDataParallel; (K, *F) -> (K, num_classes) logits.
        images, labels: (K, *F); (K,) int64, best left on the CPU: on an accelerator their check waits for it.
        generator: on the CPU, one for each step and rank (``randomness.stream``); or what :func:`draw_step` drew from
            it, and then labels aren't checked against ``num_classes`` and nothing waits for the device.
        mix: MixUp, CutMix, ManifoldMixUp or None.
        label_smoothing: share of the uniform distribution in the targets, after the mix.
        logit_norm, jacobian: weights of :func:`logit_norm_penalty` and :func:`jacobian_penalty`.
        coded: attached to blocks of the model; its own weight, 1 by default, multiplies ``mu``.
        against: ``outputs``: the coded penalty is the discrepancy between decoded and plain outputs. ``labels``: it is
            the cross-entropy of decoded logits with the step's targets (mixed and smoothed as they are); ``coded``
            then has the whole model as its one block.
        autocast: around the training forward; losses and the Jacobian's pass stay in float32.
        backward: what differentiates the loss (``accelerator.backward``).
        max_grad_norm: bound on the norm of all gradients together (not with fp16 loss scaling), or None.

    Returns:
        Detached scalars: loss (cross-entropy alone, with mixed and smoothed targets), and each penalty before
        its weight where it was measured: logit_norm, jacobian, coded.

    Raises:
        ConfigError, BatchError, BlockError: for an option, a batch or a block that can't be used.
    """
    _check_options(generator, num_classes, mix, coded, mu)
    _check_against(against, coded, model)
    _check_strengths(label_smoothing, logit_norm, jacobian, max_grad_norm)
    labels = _checked_labels(images, labels, None if isinstance(generator, StepDraw) else num_classes)
    optimizer.zero_grad(set_to_none=True)
    # The wrapper readies the gradients' exchange in its one forward; a second pass is for the bare module.
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    if isinstance(generator, StepDraw):
        drawn = generator
    else:
        drawn = draw_step(generator, bare, images.shape, num_classes, mix, jacobian)
    compared = _Targets(label_smoothing) if against == "labels" else None
    with (
        autocast(),
        _mixed_and_observed(bare, images, labels, num_classes, mix, coded, drawn, compared) as (inputs, targets),
    ):
        if compared:
            compared.targets = targets
        logits = model(inputs)
    _check_logits(logits, len(images), num_classes)
    losses = {"loss": cross_entropy(logits, targets, label_smoothing)}
    if logit_norm:
        losses["logit_norm"] = logit_norm_penalty(logits)
    if jacobian:
        assert drawn.projections is not None
        losses["jacobian"] = jacobian_penalty(bare, inputs, drawn.projections)
    backward(_combined(losses, {"logit_norm": logit_norm, "jacobian": jacobian}, coded, mu))
    if max_grad_norm is not None:
        nn.utils.clip_grad_norm_(bare.parameters(), max_grad_norm)
    optimizer.step()
    if coded and coded.penalties:
        losses["coded"] = torch.stack(list(coded.penalties.values())).sum()
    return {name: value.detach() for name, value in losses.items()}


class _Targets:
    """A discrepancy to the step's targets, which are known only when the batch is mixed."""

    def __init__(self, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing
        self.targets: Tensor | None = None

    def __call__(self, decoded: Tensor, _output: Tensor) -> Tensor:  # (K, C) -> ()
        assert self.targets is not None
        return cross_entropy(decoded, self.targets, self.label_smoothing)


@contextmanager
def _mixed_and_observed(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    mix: Mix | None,
    coded: CodedSmoothing | None,
    drawn: StepDraw,
    discrepancy: Discrepancy | None,
) -> Iterator[Mixed]:
    """Around the training forward: (what the model is called with, targets)."""
    if mix is not None:
        mix.check(model, coded)
    # Observation begins before the mix, whose hook then comes first: what is coded is mixed already.
    with coded.observe(discrepancy) if coded else nullcontext():
        if mix is None or drawn.mix is None:
            yield images, labels
            return
        with mix.mixing(model, images, labels, num_classes, drawn.mix) as mixed:
            yield mixed


def _combined(losses: Losses, weights: dict[str, float], coded: CodedSmoothing | None, mu: float) -> Tensor:  # ()
    total = losses["loss"]
    for name, weight in weights.items():
        if name in losses:
            total = total + weight * losses[name]
    return (1 - mu) * total + mu * coded.penalty() if coded and mu else total


def _check_options(
    generator: torch.Generator | StepDraw,
    num_classes: int,
    mix: Mix | None,
    coded: CodedSmoothing | None,
    mu: float,
) -> None:
    if isinstance(generator, torch.Generator) and generator.device.type != "cpu":
        raise ConfigError(f"generator is on {generator.device}: give one on the CPU, such as randomness.stream(...).")
    if num_classes < 2:
        raise ConfigError(f"num_classes={num_classes}: a classifier needs at least 2.")
    if isinstance(mix, list | tuple):
        raise ConfigError(f"mix={mix!r}: two mixes at once would mix the labels twice; choose one.")
    if mix is not None and not isinstance(mix, Mix):
        raise ConfigError(f"mix={mix!r}: give MixUp(alpha), CutMix(alpha), ManifoldMixUp(alpha, blocks) or None.")
    if not 0 <= mu < 1:
        raise ConfigError(f"mu={mu}: the coded penalty's share must be in [0, 1); at 1 nothing of the task is left.")
    if mu and coded is None:
        raise ConfigError(f"mu={mu} without coded: give coded=CodedSmoothing(model, blocks=[...]), or mu=0.")


def _check_against(against: str, coded: CodedSmoothing | None, model: nn.Module) -> None:
    if against not in AGAINST:
        raise ConfigError(f"against={against!r} is unknown: choose one of {', '.join(AGAINST)}.")
    if against == "labels" and coded is not None:
        bare = model.module if isinstance(model, DistributedDataParallel) else model
        if len(coded.blocks) != 1 or next(iter(coded.blocks.values())) is not bare:
            raise ConfigError(
                f"against='labels' with coded blocks {list(coded.blocks)}: only logits can be compared with labels, so "
                'code the model itself, CodedSmoothing(model, blocks=[""]).'
            )


def _check_strengths(label_smoothing: float, logit_norm: float, jacobian: float, max_grad_norm: float | None) -> None:
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label_smoothing={label_smoothing}: must be in [0, 1); 0 is off.")
    for name, strength in (("logit_norm", logit_norm), ("jacobian", jacobian)):
        if not 0 <= strength < math.inf:
            raise ConfigError(f"{name}={strength}: a penalty's weight must be 0 (off) or above.")
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ConfigError(f"max_grad_norm={max_grad_norm}: must be above 0; None is off.")


def _checked_labels(images: Tensor, labels: Tensor, num_classes: int | None) -> Tensor:  # (K, *F), (K,) -> (K,)
    """The labels, on the images' device; without ``num_classes`` they are not read."""
    if images.dim() < 1 or len(images) == 0 or labels.shape != images.shape[:1]:
        raise BatchError(
            f"classifier_step got images {tuple(images.shape)} and labels {tuple(labels.shape)}: there must be at "
            "least one image, and one label for each, of shape (K,). One-hot labels need .argmax(1)."
        )
    if labels.dtype != torch.int64:
        raise BatchError(f"classifier_step got labels of {labels.dtype}: give class numbers in int64 (labels.long()).")
    if num_classes is None:
        return labels.to(images.device, non_blocking=True)
    low, high = (int(value) for value in torch.stack(labels.aminmax()).tolist())
    if low < 0 or high >= num_classes:
        raise BatchError(
            f"label {low if low < 0 else high} is not a class: with num_classes={num_classes} they run from 0 to "
            f"{num_classes - 1}. Set num_classes to the data set's, or number the labels from 0."
        )
    return labels.to(images.device, non_blocking=True)


def _check_logits(logits: Any, K: int, num_classes: int) -> None:
    if not isinstance(logits, Tensor) or logits.shape != (K, num_classes):
        given = f"{tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ConfigError(
            f"the model gave {given} for {K} images: classifier_step needs logits of shape ({K}, {num_classes}). "
            f"Build the model with num_classes={num_classes}, or pick the logits out of what it returns."
        )
