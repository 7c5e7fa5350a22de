"""The strength of coding as a share of the gradient: measured, and held by a weight that follows it.

A weight says nothing by itself: the same one can be a thousandth of the gradient in one network and most of it in
another. The share is the norm of the weighted penalty's gradient divided by the norm of the other loss's gradient, on
the parameters that both touch. Ours. VQGAN (Esser et al. 2021, equation 7) sets the weight of its adversarial loss by
such a ratio of norms, on one layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import TYPE_CHECKING

import torch
import torch.distributed
from torch import Tensor, nn

from cs_gan.errors import CodeError

if TYPE_CHECKING:
    from cs_gan.core.smoothing import CodedSmoothing


UNMEASURED = 100
"""So many penalties may do without a measurement at the start."""


def gradient_norms(penalty: Tensor, loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:  # (), () -> (2,)
    """The norms of the gradients of penalty and loss, on the parameters that both touch; float32.

    Both graphs stay, for the backward of the training step. If they share no parameters, both norms are 0.

    Args:
        penalty, loss: scalars with a graph. ``loss`` is without the penalty.
        parameters: those to train.

    Raises:
        CodeError: for a loss without a graph.
    """
    if not isinstance(loss, Tensor) or loss.dim() or not loss.requires_grad:
        raise CodeError(
            "the loss must be a scalar tensor with its graph: give it before .detach(), .item() or backward()."
        )
    chosen = [parameter for parameter in parameters if parameter.requires_grad]
    if not (chosen and penalty.requires_grad and loss.requires_grad):
        return torch.zeros(2, device=loss.device)
    gradients = [torch.autograd.grad(x, chosen, retain_graph=True, allow_unused=True) for x in (penalty, loss)]
    pairs = [(own, other) for own, other in zip(*gradients, strict=True) if own is not None and other is not None]
    if not pairs:
        return torch.zeros(2, device=loss.device)
    squares = [
        torch.stack([slope.abs().float().square().sum() for slope in slopes]).sum()
        for slopes in zip(*pairs, strict=True)
    ]
    return torch.stack(squares).sqrt()


def trained(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Those to train.

    Raises:
        CodeError: if there are none, as where a generator was used up by an earlier call.
    """
    chosen = [parameter for parameter in parameters if parameter.requires_grad]
    if not chosen:
        raise CodeError(
            "there are no parameters to train, so no share of a gradient. Give network.parameters() anew in each call: "
            "kept in a variable it is used up by the first."
        )
    return chosen


def share_of(norms: Tensor) -> Tensor:  # (2,) -> ()
    """The first norm over the second; finite unless a norm isn't."""
    info = torch.finfo(norms.dtype)
    return (norms[0] / norms[1].clamp_min(info.tiny)).clamp(max=info.max)


def coded_objective(
    loss: Tensor, coded: CodedSmoothing | None, network: nn.Module, measure_share: bool, mu: float | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """A step's objective: loss + penalty, or with mu (1 - mu) loss + mu penalty.

    Args:
        loss: () with its graph, without the coded penalty.
        coded: attached to blocks of ``network``, after its ``observe()``; None is plain training.
        network: its trained parameters have the gradients that a share compares.
        measure_share: also measure the penalty's share of the gradient.

    Returns:
        The objective, (), and what was measured: ``coded`` (the unweighted penalty) and ``coded_share``.
    """
    if coded is None:
        return loss, {}
    measured = {"coded": coded.unweighted} if coded.penalties else {}  # none in a step that `every` skips
    if mu == 0:
        return loss, measured
    penalty = coded.penalty()
    if mu is not None:
        loss, penalty = (1 - mu) * loss, mu * penalty
    if measure_share and measured:
        measured["coded_share"] = coded.share(penalty, loss, network.parameters())
    return loss + penalty, measured


def mean_of_processes(values: Tensor) -> Tensor:
    """The mean over all processes, in place, on the device of the values: NCCL takes no others."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
        values /= torch.distributed.get_world_size()
    return values


class HeldShare(nn.Module):
    """A weight that holds the penalty at a share of the gradient.

    ::

        held = HeldShare(0.1)
        coded = CodedSmoothing(critic, ["blocks.1"], weight=held)
        for step, real in enumerate(loader):
            with coded.observe():
                loss = critic_loss(critic(real))
            penalty = coded.penalty()
            if step % 10 == 0:
                held.follow(penalty, loss, critic.parameters())
            (loss + penalty).backward()

    :meth:`follow` moves the logarithm of the weight towards the one that would give the share now: by the fraction
    ``1 - decay``, and by at most a factor of ``change``. So a gradient of the loss that vanishes for a step can't blow
    the weight up. It applies from the next penalty on. The first call jumps to the measured weight.

    With several blocks it is the share of their sum, on all parameters. One of them can be far above it on the few
    parameters before it: ``diagnose`` shows each.

    The state is in buffers: save the module in your checkpoints. With several processes the norms are averaged.

    Args:
        share: the share to hold, in (0, 1]; 0.1 is 10 %.
        start: the weight before the first measurement.
        decay: how slowly the weight follows, in [0, 1).
        change: the largest factor of one change.
        bounds: smallest and largest weight.

    Raises:
        CodeError: for values that can't be used.
    """

    weight: Tensor  # ()
    measured: Tensor  # (): the share at the last measurement
    count: Tensor  # () int64

    def __init__(
        self,
        share: float,
        *,
        start: float = 1e-3,
        decay: float = 0.5,
        change: float = 2.0,
        bounds: tuple[float, float] = (1e-8, 1e8),
    ) -> None:
        super().__init__()
        pair = tuple(bounds) if isinstance(bounds, Sequence) else ()
        numbers = (share, start, decay, change, *pair)
        if len(pair) != 2 or not all(isinstance(number, Real) for number in numbers):
            raise CodeError(f"HeldShare({', '.join(map(repr, numbers))}): give numbers, and two bounds.")
        if not 0 < share <= 1:
            raise CodeError(f"HeldShare({share}): give a share of the gradient in (0, 1], such as 0.1 for 10 %.")
        if not (0 <= decay < 1 and change > 1 and torch.finfo().tiny <= bounds[0] <= start <= bounds[1] < math.inf):
            raise CodeError(
                f"HeldShare(start={start}, decay={decay}, change={change}, bounds={bounds}): decay must be in [0, 1), "
                "change above 1, and start within bounds, which are above 1e-38."
            )
        self.share, self.decay, self.change, self.bounds = share, decay, change, bounds
        self.register_buffer("weight", torch.tensor(float(start)))
        self.register_buffer("measured", torch.tensor(0.0))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.every = 1  # set by CodedSmoothing: its penalty has this factor
        self._penalties = 0

    @torch.no_grad()
    def follow(self, penalty: Tensor, loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:  # -> ()
        """Measure the share of the weighted ``penalty``, and adjust the weight. Gives the measured share.

        With ``every`` above 1 it is the share on average over steps, and in a step that is not coded nothing happens.

        Args:
            penalty, loss, parameters: as in :func:`gradient_norms`; ``penalty`` already has this weight.

        Raises:
            CodeError: for a loss without a graph, or without parameters to train.
        """
        with torch.enable_grad():
            norms = gradient_norms(penalty, loss, trained(parameters))
        if not penalty.requires_grad:
            return self.measured.clone()
        return self.adjust(
            torch.stack([norms[0] / self.every, norms[1]])
        )  # a new tensor of numbers would stop a capture

    @torch.no_grad()
    def adjust(self, norms: Tensor) -> Tensor:  # (2,) -> ()
        """The same from norms that were measured already."""
        norms = mean_of_processes(norms.detach()).to(self.weight)
        self.measured.copy_(share_of(norms))
        usable = (norms > 0).all() & norms.isfinite().all()
        first = self.count == 0
        change = (self.share * norms[1] / norms[0]).log() * torch.where(first, 1.0, 1 - self.decay)
        limit = torch.where(first, math.inf, math.log(self.change))
        new_weight = (self.weight.log() + change.clamp(-limit, limit)).exp().clamp(*self.bounds)
        self.weight.copy_(torch.where(usable, new_weight, self.weight))
        self.count += usable
        return self.measured.clone()

    def of_penalty(self) -> Tensor:  # ()
        """The weight for a penalty.

        Raises:
            CodeError: if the gradient was never measured while many penalties were asked for.
        """
        if torch.compiler.is_compiling():  # a count would compile every step anew
            return self.weight
        if self.count.is_cuda and torch.cuda.is_current_stream_capturing():  # which can't read the count
            return self.weight
        self._penalties += 1
        if self._penalties % UNMEASURED == 0 and not self.count:
            raise CodeError(
                f"HeldShare({self.share}) gave {self._penalties} penalties its first weight, {self.weight.item():.3g}, "
                "and never saw a gradient of both penalty and loss: call held.follow(penalty, loss, "
                "network.parameters()) before the backward of every tenth step or so, with the parameters of the coded "
                "network (critic_step and the others: measure_share=True)."
            )
        return self.weight

    def extra_repr(self) -> str:
        """Share and weight."""
        return f"share={self.share}, weight={self.weight.item():.3g}"
