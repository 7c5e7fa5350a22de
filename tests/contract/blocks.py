"""The blocks that the contract's kinds are made of, and the small models that hold them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._pytree import register_pytree_node


class Holder(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, *args, **kwargs):
        return self.block(*args, **kwargs)


class AfterEmbedding(Holder):
    def __init__(self, block):
        super().__init__(block)
        self.embedding = nn.Embedding(7, 4)

    def forward(self, tokens):
        return self.block(self.embedding(tokens))


class CloneFirst(Holder):
    def forward(self, x):
        return self.block(x.clone())


class MadeSparse(Holder):
    def forward(self, x):
        return self.block(x.to_sparse())


class Thrice(Holder):
    def forward(self, x):
        return self.block(self.block(x)), self.block(x.sin())


class SharedByTwo(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.left, self.right = nn.Sequential(block), nn.Sequential(nn.Linear(4, 4), block)

    def forward(self, x):
        return self.left(x) + self.right(x)


class Members(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.stages = nn.ModuleList([nn.Linear(4, 4), block, nn.Linear(4, 4)])

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return x


class Residual(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.body = nn.Sequential(norm, nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))

    def forward(self, x):
        return x + self.body(x)


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(2 + 2 * i, 2, 3, padding=1) for i in range(3))

    def forward(self, x):
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1).relu()))
        return torch.cat(features, 1)


class Conditional(nn.Module):
    """Scale and shift by a label's embedding, or by a style."""

    def __init__(self, labels):
        super().__init__()
        self.to_gain = nn.Embedding(3, 4) if labels else nn.Linear(2, 4)
        self.linear = nn.Linear(4, 4)

    def forward(self, x, condition):
        return self.linear(x).tanh() * (1 + self.to_gain(condition))


class Overwriting(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x.sin_())


@dataclass
class Heads:
    mean: torch.Tensor
    rest: dict[str, Any]
    note: str = "none"


class Registered:
    def __init__(self, mean, deviation):
        self.mean, self.deviation = mean, deviation


register_pytree_node(Registered, lambda x: ([x.mean, x.deviation], None), lambda values, _: Registered(*values))


class Pair(NamedTuple):
    mean: torch.Tensor
    deviation: torch.Tensor


class Giving(nn.Module):
    """Gives its two outputs in some wrapping."""

    def __init__(self, wrap):
        super().__init__()
        self.linear, self.wrap = nn.Linear(4, 3), wrap

    def forward(self, x):
        return self.wrap(self.linear(x).tanh(), x.exp())


def as_dict(mean, deviation):
    return {"mean": mean, "deviation": [deviation, "none"]}


def as_dataclass(mean, deviation):
    return Heads(mean, {"deviation": deviation})


class TakingDataclass(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, given):
        return self.linear(given.mean).tanh() * given.rest["scale"]


class Functional(nn.Module):
    """An output that the batch can't be found in."""

    def __init__(self, function):
        super().__init__()
        self.linear, self.function = nn.Linear(4, 3), function

    def forward(self, x):
        return self.function(self.linear(x))


def over_batch(x):
    return x.mean(0)


def chosen(x):
    return x.argmax(1)


def opaque(x):
    return {x.shape}  # a set: no nesting that can be opened


def old_style_spectral_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still in many published critics
        return nn.utils.spectral_norm(nn.Linear(4, 4))


def compiled():
    return torch.compile(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), backend="eager")


class MaskedAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x, mask):
        return self.attention(x, x, x, key_padding_mask=mask)


class Recurrent(nn.Module):
    """A block of the user's own around a recurrent layer with the batch as axis 1."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, 3)

    def forward(self, x):
        return self.gru(x.tanh())[0]


class MaskedScores(nn.Module):
    """Attention with a mask that is added to the scores."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x, bias):
        x = self.linear(x)
        return (x @ x.mT + bias).softmax(-1) @ x


class Positioned(nn.Module):
    """Adds a table of positions, the same for all samples."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x, table):
        return self.linear(x + table).tanh()
