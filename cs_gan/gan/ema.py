"""The averaged generator, which sampling and scoring use."""

from __future__ import annotations

from enum import Enum, auto

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.optim.swa_utils import AveragedModel


def averaged(generator: nn.Module, decay: float = 0.999) -> AveragedModel:
    """An exponential moving average of a generator's weights and running statistics.

    Early averages would be dominated by the initial weights, so the decay after t updates is
    min(decay, (1 + t) / (10 + t)), as in TensorFlow's ``ExponentialMovingAverage``; the first update copies. Call
    ``update_parameters`` after each step. ``module`` is the averaged network.

    Each tensor has a rule:

    - Parameters and floating-point or complex buffers of the state dict (running statistics, codebooks) are averaged.
      One that has infinite values at first, such as a mask of -inf, is copied where it isn't finite.
    - Integers and booleans (counters, random states) are copied. So are buffers with ``persistent=False`` (tables,
      masks), which are no state.
    - The singular vectors of torch's spectral norm, old and new, belong to the averaged weight: each update improves
      them by a power iteration on it, as a training step does for the live weight. So its spectral norm stays 1.
    - Tensors of 16 or 8 bits are averaged in float32 (buffers ``wide_<i>`` of the average). In bfloat16 a thousandth of
      a change would be rounded away, and the average would never move. ``module`` holds the rounded average.

    Raises:
        ValueError: for a decay outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay={decay} must be in [0, 1): 0 follows the weights, 0.999 is usual.")
    return _Averaged(generator, decay)


class _Averaged(AveragedModel):
    """torch's own update reads its counter on the host. This one leaves it on the device."""

    n_averaged: Tensor

    def __init__(self, generator: nn.Module, decay: float) -> None:
        super().__init__(generator, use_buffers=True)
        self.decay = decay
        self.to(next(generator.parameters()).device)
        self.eval().requires_grad_(False)
        self._rules = _rules(generator)
        self._wide: dict[int, str] = {}
        for i, (rule, value) in enumerate(zip(self._rules, _state(self.module), strict=True)):
            if rule in (Rule.AVERAGE, Rule.AVERAGE_FINITE) and value.element_size() < 4:
                self._wide[i] = f"wide_{i}"
                self.register_buffer(f"wide_{i}", value.to(torch.float32))

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average with the model's weights and buffers."""
        count = self.n_averaged.to(torch.float32)
        share = (9 / (10 + count)).clamp_min(1 - self.decay).masked_fill(count == 0, 1.0)  # of the new weights
        floats: list[tuple[Tensor, Tensor]] = []
        rounded: list[tuple[Tensor, Tensor]] = []
        unless_finite: list[tuple[Tensor, Tensor]] = []
        for i, (rule, average, value) in enumerate(zip(self._rules, _state(self.module), _state(model), strict=True)):
            if rule is Rule.COPY:
                average.copy_(value)
            elif rule is Rule.SINGULAR_VECTOR:
                average.copy_(torch.where(count == 0, value, average))  # the first update copies the weight
            else:
                pair = average, value
                if i in self._wide:
                    pair = self.get_buffer(self._wide[i]), value.to(torch.float32)
                    rounded.append((average, pair[0]))
                floats.append(pair)
                if rule is Rule.AVERAGE_FINITE:
                    unless_finite.append(pair)
        _mix(floats, share)
        for average, value in unless_finite:
            average.copy_(torch.where(average.isfinite(), average, value))  # -inf * 0 is NaN
        for narrow, wide in rounded:
            narrow.copy_(wide)
        if Rule.SINGULAR_VECTOR in self._rules:
            _iterate(self.module)
        self.n_averaged.add_(1)


class Rule(Enum):
    """What an update does with a parameter or buffer."""

    AVERAGE = auto()
    AVERAGE_FINITE = auto()
    SINGULAR_VECTOR = auto()
    COPY = auto()


def _state(network: nn.Module) -> list[Tensor]:
    """Parameters and buffers, complex ones as pairs of real numbers."""
    tensors = [*(parameter.detach() for parameter in network.parameters()), *network.buffers()]
    return [torch.view_as_real(x) if x.is_complex() else x for x in tensors]


def _rules(network: nn.Module) -> list[Rule]:
    """One for each tensor of :func:`_state`."""
    copied: set[int] = set()
    vectors: set[int] = set()
    for module in network.modules():
        copied |= {id(module._buffers[name]) for name in module._non_persistent_buffers_set}
        if isinstance(module, _SpectralNorm):
            vectors |= {id(buffer) for buffer in module.buffers(recurse=False)}
        for hook in _old_style(module):
            vectors |= {id(module.get_buffer(f"{hook.name}_{side}")) for side in "uv"}

    def rule(tensor: Tensor) -> Rule:
        if id(tensor) in vectors:
            return Rule.SINGULAR_VECTOR
        if id(tensor) in copied or not (tensor.is_floating_point() or tensor.is_complex()):
            return Rule.COPY
        return Rule.AVERAGE if bool(tensor.isfinite().all()) else Rule.AVERAGE_FINITE

    return [rule(tensor) for tensor in (*network.parameters(), *network.buffers())]


def _mix(pairs: list[tuple[Tensor, Tensor]], share: Tensor) -> None:
    """average <- (1 - share) average + share value, for all pairs (average, value)."""
    for dtype in {average.dtype for average, _ in pairs}:
        averages = [average for average, _ in pairs if average.dtype == dtype]
        values = [value for average, value in pairs if average.dtype == dtype]
        torch._foreach_mul_(averages, (1 - share).to(dtype))
        torch._foreach_add_(averages, torch._foreach_mul(values, share.to(dtype)))


# -- spectral norm ---------------------------------------------------------------------------------


def _old_style(module: nn.Module) -> list[SpectralNorm]:
    return [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, SpectralNorm)]


def _iterate(network: nn.Module) -> None:
    """A power iteration on each spectrally normalised weight, as in a forward pass in training mode."""
    for module in network.modules():
        if isinstance(module, ParametrizationList):
            norms = [part for part in module if isinstance(part, _SpectralNorm)]
            before = [norm.training for norm in norms]
            for norm in norms:
                norm.training = True
            if norms:
                module()
            for norm, training in zip(norms, before, strict=True):
                norm.training = training
        for hook in _old_style(module):
            hook.compute_weight(module, do_power_iteration=True)
