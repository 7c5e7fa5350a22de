"""Coding done by hand: scipy's splines as matrices, applied to each tensor along the axis that a kind states."""

from __future__ import annotations

from functools import cache

import torch
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm

from cs_gan import SplineCode
from tests.contract.kinds import Heads, K, Pair, Registered
from tests.core.oracles import naive_decode, naive_encode

RATIO = 1.5
N = 8  # round(1.5 K)


@cache
def matrices():
    """E (N, K), D (K, N) and for each coded sample the data sample nearest to it."""
    code = SplineCode(K, N)
    nearest = [min(range(K), key=lambda k: abs(code.alpha[k] - beta)) for beta in code.beta]
    return naive_encode(code, torch.eye(K)), naive_decode(code, torch.eye(N)), torch.tensor(nearest)


def rebuilt(tree, function):
    """Every tensor of the nestings that kinds use, replaced."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: rebuilt(value, function) for key, value in tree.items()}
    if isinstance(tree, Heads):
        return Heads(rebuilt(tree.mean, function), rebuilt(tree.rest, function), tree.note)
    if isinstance(tree, Registered):
        return Registered(rebuilt(tree.mean, function), rebuilt(tree.deviation, function))
    if isinstance(tree, Pair):
        return Pair(*(rebuilt(value, function) for value in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(rebuilt(value, function) for value in tree)
    return tree


def tensors(tree):
    found = []
    rebuilt(tree, found.append)
    return found


def freeze_power_iteration(model):
    """Spectral norm keeps the weight that it has; everything else stays in its mode."""
    for module in model.modules():
        old = any(isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values())
        if old or isinstance(module, parametrize.ParametrizationList):
            module.eval()


def mix(matrix, x, axis):
    return torch.tensordot(matrix.to(x.dtype), x, dims=([1], [axis])).movedim(0, axis)


def freeze(model):
    """No forward changes the model: neither its power iterations nor the state that blocks of ours keep."""
    freeze_power_iteration(model)
    for module in model.modules():
        if getattr(module, "keeps_state", False):
            module.eval()


class ByHand:
    """Observes, or substitutes, the coded block of a kind's model."""

    def __init__(self, kind, model, generator=None):
        self.kind, self.generator, self.busy, self.penalty = kind, generator, False, 0.0
        block = model.get_submodule(kind.name)
        block.register_forward_pre_hook(self.before, with_kwargs=True)
        block.register_forward_hook(self.after)

    def encoded(self, inputs, order):
        E, _, nearest = matrices()
        axes = iter(self.kind.takes)

        def encode(x):
            axis = next(axes)
            if axis == "kept":
                return x
            if axis == "nearest":
                return x[order][nearest]
            return mix(E, x.index_select(axis, order), axis)

        return rebuilt(inputs, encode)

    def decoded(self, output, order):
        _, D, _ = matrices()
        axes = iter(self.kind.gives)

        def decode(y):
            axis = next(axes)
            return mix(D, y, axis).index_select(axis, order.argsort())

        return rebuilt(output, decode)

    def before(self, _block, args, kwargs):
        if self.busy:
            return None
        self.order = torch.arange(K) if self.generator is None else torch.randperm(K, generator=self.generator)
        self.given = self.encoded((args, kwargs), self.order)
        return None if self.generator is None else self.given

    def after(self, block, _args, output):
        if self.busy:
            return None
        if self.generator is not None:
            return self.decoded(output, self.order)
        modes = {module: module.training for module in block.modules()}
        freeze(block)  # both passes have one weight, and only the plain one counts
        self.busy = True
        args, kwargs = self.given
        decoded = self.decoded(block(*args, **kwargs), self.order)
        self.busy = False
        for module, mode in modes.items():
            module.training = mode
        pairs = zip(tensors(output), tensors(decoded), strict=True)
        self.penalty = self.penalty + sum((other - plain).square().mean() for plain, other in pairs)
        return None
