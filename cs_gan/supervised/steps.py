"""One update of a classifier, as a function of everything it uses.

The objective is (1 - mu) (task + weighted penalties) + mu coded penalty, the paper's combination. With everything off
it is empirical risk minimisation (ERM). With mu = 0 the coded penalty is measured but not used. With ``every`` above 1,
steps without coding keep the factor (1 - mu), and the penalty counts ``every`` times on the others. So the task has the
same weight in all steps, and the mean gradient over ``every`` steps is the same as with coding in each. The Jacobian is
taken at the inputs of the model, so after mixing.

The random numbers for mixing and for the Jacobian's projections come from the step's own generator. So a step is a
function of weights, batch and that generator's seed. Dropout draws from torch's global generators. :func:`draw_step`
makes these draws separately, on the host. The rest is a function of tensors, which a CUDA graph can hold.
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
from cs_gan.core.share import coded_objective
from cs_gan.core.update import Backward, MicroBatch, StepLosses, Update
from cs_gan.errors import BatchError, ConfigError
from cs_gan.supervised.classifier_losses import cross_entropy, jacobian_penalty, logit_norm_penalty
from cs_gan.supervised.mixes import Mix, MixDraw, Mixed

AGAINST = ("outputs", "labels")
"""What the penalty can compare decoded outputs with."""


@dataclass(frozen=True)
class StepDraw:
    """The random numbers of one step.

    Attributes:
        mix: how this batch is mixed; None if it isn't.
        projections: (K, C) for the Jacobian; None without it.
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
    """The random numbers that :func:`classifier_step` would draw for a batch of this shape, (K, *F)."""
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
    micro_batch: MicroBatch = (1, 1),
    measure_share: bool = False,
) -> StepLosses:
    """One update by one backward of (1 - mu) (task + penalties) + mu coded penalty.

    Args:
        model: plain or wrapped in DistributedDataParallel; (K, *F) -> (K, num_classes) logits.
        images, labels: (K, *F); (K,) int64, best on the CPU: checking labels on an accelerator waits for the device.
        generator: on the CPU, one for each step and rank (``randomness.stream``); or the result of
            :func:`draw_step`. Then labels aren't checked against ``num_classes`` and nothing waits for the device.
        mix: MixUp, CutMix, ManifoldMixUp or None.
        label_smoothing: share of the uniform distribution in the targets, after the mix.
        logit_norm, jacobian: weights of :func:`logit_norm_penalty` and :func:`jacobian_penalty`.
        coded: attached to blocks of the model; its ``weight``, 1 by default, multiplies ``mu``.
        against: ``outputs``: the coded penalty is the discrepancy between decoded and plain outputs. ``labels``: it is
            the cross-entropy of decoded logits with the step's targets (mixed and smoothed). Then the whole model must
            be the only block of ``coded``.
        autocast: context for the training forward; losses and the Jacobian's pass stay in float32.
        backward: differentiates the loss (``accelerator.backward``).
        micro_batch: (i, n) for the i-th of n micro-batches of one update; K is its size. Inside
            ``accelerator.accumulate`` leave it out (:class:`~cs_gan.core.update.Update`).
        measure_share: also measure the share of mu coded penalty in the gradient (:meth:`CodedSmoothing.share`).

    Returns:
        Detached scalars: loss (only cross-entropy, with mixed and smoothed targets), and the unweighted penalties that
        were measured: logit_norm, jacobian, coded; and coded_share.

    Raises:
        ConfigError, BatchError, BlockError: for an option, a batch or a block that can't be used.
    """
    _check_options(generator, num_classes, mix, coded, mu)
    _check_against(against, coded, model)
    _check_strengths(label_smoothing, logit_norm, jacobian)
    labels = _checked_labels(images, labels, None if isinstance(generator, StepDraw) else num_classes)
    update = Update("classifier_step", optimizer, micro_batch)
    # The wrapper prepares the exchange of gradients in its one forward. A second pass must use the bare module.
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    draws = generator
    if isinstance(draws, torch.Generator):
        draws = draw_step(draws, bare, images.shape, num_classes, mix, jacobian)
    if mix is not None:
        mix.check(bare, coded)
    mixed = _mixed(bare, images, labels, num_classes, mix, draws)
    smoothing = label_smoothing if against == "labels" else None
    with autocast(), _observed(mixed, coded, smoothing) as (inputs, targets):
        logits = model(inputs)
    _check_logits(logits, len(images), num_classes)
    losses = {"loss": cross_entropy(logits, targets, label_smoothing)}
    if logit_norm:
        losses["logit_norm"] = logit_norm_penalty(logits)
    if jacobian:
        assert draws.projections is not None
        losses["jacobian"] = jacobian_penalty(bare, inputs, draws.projections)
    total = _summed(losses, {"logit_norm": logit_norm, "jacobian": jacobian})
    objective, measured = coded_objective(total, coded, model, measure_share, mu)
    update.backward(backward, objective)
    update.finish()
    return {name: value.detach() for name, value in (losses | measured).items()}


def _mixed(
    model: nn.Module, images: Tensor, labels: Tensor, num_classes: int, mix: Mix | None, draws: StepDraw
) -> AbstractContextManager[Mixed]:
    """A context that mixes inputs and targets, if they are mixed."""
    if mix is None or draws.mix is None:
        return nullcontext((images, labels))
    return mix.mixing(model, images, labels, num_classes, draws.mix, checked=True)  # in _checked_labels


@contextmanager
def _observed(
    mixed: AbstractContextManager[Mixed], coded: CodedSmoothing | None, label_smoothing: float | None
) -> Iterator[Mixed]:
    """A context for the training forward. Gives (inputs of the model, targets).

    With ``label_smoothing``, decoded outputs are compared with the targets, which are known only after mixing.
    """
    targets_of_step: list[Tensor] = []

    def to_targets(decoded: Tensor, _output: Tensor) -> Tensor:  # (K, C) -> ()
        return cross_entropy(decoded, targets_of_step[0], label_smoothing or 0.0)

    # observe() comes before the mix, so the hook of the mix runs first and coding sees mixed samples.
    with coded.observe(None if label_smoothing is None else to_targets) if coded else nullcontext(), mixed as pair:
        targets_of_step.append(pair[1])
        yield pair


def _summed(losses: StepLosses, weights: dict[str, float]) -> Tensor:  # ()
    total = losses["loss"]
    for name, weight in weights.items():
        if name in losses:
            total = total + weight * losses[name]
    return total


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
        raise ConfigError(f"mix={mix!r}: two mixes would mix the labels twice. Choose one.")
    if mix is not None and not isinstance(mix, Mix):
        raise ConfigError(f"mix={mix!r}: give MixUp(alpha), CutMix(alpha), ManifoldMixUp(alpha, blocks) or None.")
    if not 0 <= mu < 1:
        raise ConfigError(f"mu={mu}: the coded penalty's share must be in [0, 1); at 1 the task has no weight.")
    if mu and coded is None:
        raise ConfigError(f"mu={mu} without coded: give coded=CodedSmoothing(model, blocks=[...]), or mu=0.")


def _check_against(against: str, coded: CodedSmoothing | None, model: nn.Module) -> None:
    if against not in AGAINST:
        raise ConfigError(f"against={against!r} is unknown: choose one of {', '.join(AGAINST)}.")
    if against == "labels" and coded is not None:
        bare = model.module if isinstance(model, DistributedDataParallel) else model
        if len(coded.blocks) != 1 or next(iter(coded.blocks.values())) is not bare:
            raise ConfigError(
                f"against='labels' with coded blocks {list(coded.blocks)}: only logits can be compared with labels. "
                'Code the model itself: CodedSmoothing(model, blocks=[""]).'
            )


def _check_strengths(label_smoothing: float, logit_norm: float, jacobian: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label_smoothing={label_smoothing}: must be in [0, 1); 0 is off.")
    for name, strength in (("logit_norm", logit_norm), ("jacobian", jacobian)):
        if not 0 <= strength < math.inf:
            raise ConfigError(f"{name}={strength}: a penalty's weight must be 0 (off) or above.")


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
            f"label {low if low < 0 else high} is not a class: with num_classes={num_classes} classes are 0 to "
            f"{num_classes - 1}. Set num_classes to that of the data set, or number the labels from 0."
        )
    return labels.to(images.device, non_blocking=True)


def _check_logits(logits: Any, K: int, num_classes: int) -> None:
    if not isinstance(logits, Tensor) or logits.shape != (K, num_classes):
        description = f"{tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ConfigError(
            f"the model gave {description} for {K} images: classifier_step needs logits of shape ({K}, {num_classes}). "
            f"Build the model with num_classes={num_classes}, or select the logits from its output."
        )
