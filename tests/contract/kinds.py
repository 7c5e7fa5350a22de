"""The kinds of block that go through the contract, each in a small model that calls it as models do.

Adding one is adding an entry to KINDS; ``python -m tests.contract.table`` then writes its row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations

from tests.contract.blocks import (
    AfterEmbedding,
    CloneFirst,
    Conditional,
    Dense,
    Functional,
    Giving,
    Heads,
    Holder,
    MadeSparse,
    MaskedAttention,
    MaskedScores,
    Members,
    Overwriting,
    Pair,
    Positioned,
    Recurrent,
    Registered,
    Residual,
    SharedByTwo,
    TakingDataclass,
    Thrice,
    as_dataclass,
    as_dict,
    chosen,
    compiled,
    old_style_spectral_norm,
    opaque,
    over_batch,
)
from tests.contract.stateful import (
    Caching,
    Collecting,
    Counter,
    Experts,
    GivesCache,
    GivesList,
    MemoryBank,
    Renormalised,
    VectorQuantiser,
    WithCache,
    WithoutCache,
    gpt2,
)

K = 5


@dataclass(frozen=True)
class Kind:
    """How to make one, call it, and what a by-hand coding has to know of it."""

    block: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    # Batch axis of each tensor that goes in and comes out, in order; a string marks integers that follow
    # the nearest sample, "kept" what no sample has. Stated here, not asked of the library.
    takes: tuple[int | str, ...] = (0,)
    gives: tuple[int, ...] = (0,)
    options: dict[str, Any] = field(default_factory=dict)
    holder: Callable[[nn.Module], nn.Module] | None = None
    name: str = "block"  # of the coded block in the model
    random: bool = False  # draws in its forward, so that no by-hand coding can equal it

    def model(self, seed: int = 1) -> nn.Module:
        """A fresh model in float64 and training mode that holds the block."""
        torch.manual_seed(seed)
        return (self.holder or Holder)(self.block()).double()

    def batch(self, seed: int = 2) -> tuple[Any, ...]:
        """What the model is called with."""
        torch.manual_seed(seed)
        return self.inputs()


def real(*shape):
    return lambda: (torch.randn(*shape, dtype=torch.float64),)


def with_labels():
    return (*real(K, 4)(), torch.tensor([0, 2, 1, 1, 0]))


def padding(length):
    return torch.arange(length)[None] >= torch.tensor([[length], [2], [1], [length], [2]])


def additive(length):
    """(K, 1, L): 0 and -inf, as attention adds it to its scores."""
    return torch.zeros(K, 1, length, dtype=torch.float64).masked_fill(padding(length)[:, None], -torch.inf)


def hidden():
    return (*real(3, K, 4)(), (*real(2, K, 3)(), *real(2, K, 3)()))


def small(*layers):
    return nn.Sequential(*layers)


FLAT, MAPS, LINES, VOLUMES = real(K, 4), real(K, 4, 5, 5), real(K, 4, 6), real(K, 2, 3, 3, 3)
FIRST, SECOND = real(K, 3, 4), real(3, K, 4)

KINDS: dict[str, Kind] = {
    "Linear": Kind(lambda: nn.Linear(4, 3), FLAT),
    "Sequential": Kind(lambda: small(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), FLAT),
    "Conv1d": Kind(lambda: nn.Conv1d(4, 3, 3), LINES),
    "Conv2d": Kind(lambda: nn.Conv2d(4, 3, 3), MAPS),
    "Conv3d": Kind(lambda: nn.Conv3d(2, 2, 2), VOLUMES),
    "ConvTranspose1d": Kind(lambda: nn.ConvTranspose1d(4, 3, 3, 2), LINES),
    "ConvTranspose2d": Kind(lambda: nn.ConvTranspose2d(4, 3, 3, 2), MAPS),
    "ConvTranspose3d": Kind(lambda: nn.ConvTranspose3d(2, 2, 2), VOLUMES),
    "residual, BatchNorm": Kind(lambda: Residual(nn.BatchNorm2d(4)), MAPS),
    "residual, GroupNorm": Kind(lambda: Residual(nn.GroupNorm(2, 4)), MAPS),
    "residual, InstanceNorm": Kind(lambda: Residual(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)), MAPS),
    "dense (DenseNet)": Kind(Dense, real(K, 2, 4, 4)),
    "LayerNorm inside": Kind(lambda: small(nn.LayerNorm(4), nn.Linear(4, 4), nn.GELU()), FLAT),
    "spectral norm": Kind(lambda: small(parametrizations.spectral_norm(nn.Linear(4, 4)), nn.Tanh()), FLAT),
    "spectral norm, old style": Kind(lambda: small(old_style_spectral_norm(), nn.Tanh()), FLAT),
    "Dropout": Kind(lambda: small(nn.Linear(4, 6), nn.Dropout(0.5), nn.Tanh()), FLAT, random=True),
    "Dropout, shared masks": Kind(
        lambda: small(nn.Linear(4, 6), nn.Dropout(0.5), nn.Tanh()), FLAT, options={"share_dropout": True}, random=True
    ),
    "overwrites its input": Kind(Overwriting, FLAT, holder=CloneFirst),
    "attention, batch first": Kind(
        lambda: nn.MultiheadAttention(4, 2, batch_first=True), lambda: FIRST() * 3, (0, 0, 0), (0, 0)
    ),
    "attention, batch second": Kind(lambda: nn.MultiheadAttention(4, 2), lambda: SECOND() * 3, (1, 1, 1), (1, 0)),
    "attention, padding mask": Kind(
        MaskedAttention,
        lambda: (*FIRST(), padding(3)),
        (0, "nearest"),
        (0, 0),
        options={"discrete": "nearest"},
    ),
    "attention, additive mask": Kind(
        MaskedScores, lambda: (*FIRST(), additive(3)), (0, "nearest"), options={"discrete": "nearest"}
    ),
    "table of positions, as long as the batch": Kind(
        Positioned, lambda: (*real(K, K, 4)(), *real(K, 4)()), (0, "kept"), options={"arguments": {"table": "plain"}}
    ),
    "transformer layer, batch first": Kind(
        lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True), FIRST
    ),
    "transformer layer, batch second": Kind(
        lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0), SECOND, (1,), (1,)
    ),
    "transformer stack, batch second": Kind(
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0), 2, enable_nested_tensor=False),
        SECOND,
        (1,),
        (1,),
    ),
    "GRU, batch first": Kind(lambda: nn.GRU(4, 3, batch_first=True), FIRST, (0,), (0, 1)),
    "GRU, batch second": Kind(lambda: nn.GRU(4, 3), SECOND, (1,), (1, 1)),
    "LSTM, hidden states given": Kind(lambda: nn.LSTM(4, 3, 2), hidden, (1, 1, 1), (1, 1, 1)),
    "own block, batch_axis=1": Kind(Recurrent, SECOND, (1,), (1,), options={"batch_axis": {"block": 1}}),
    "after an Embedding": Kind(
        lambda: small(nn.Linear(4, 3), nn.Tanh()),
        lambda: (torch.tensor([[0, 1], [2, 6], [3, 3], [5, 0], [4, 2]]),),
        holder=AfterEmbedding,
    ),
    "conditional on a style": Kind(lambda: Conditional(False), lambda: FLAT() + real(K, 2)(), (0, 0)),
    "conditional on labels, nearest": Kind(
        lambda: Conditional(True), with_labels, (0, "nearest"), options={"discrete": "nearest"}
    ),
    "member of a ModuleList": Kind(lambda: small(nn.Linear(4, 4), nn.Tanh()), FLAT, holder=Members, name="stages.1"),
    "called three times": Kind(lambda: small(nn.Linear(4, 4), nn.Tanh()), FLAT, holder=Thrice),
    "shared by two parents": Kind(lambda: small(nn.Linear(4, 4), nn.Tanh()), FLAT, holder=SharedByTwo, name="left.0"),
    "compiled": Kind(compiled, FLAT),
    "returns a dict": Kind(lambda: Giving(as_dict), FLAT, gives=(0, 0)),
    "returns a named tuple": Kind(lambda: Giving(Pair), FLAT, gives=(0, 0)),
    "returns a dataclass": Kind(lambda: Giving(as_dataclass), FLAT, gives=(0, 0)),
    "returns a registered class": Kind(lambda: Giving(Registered), FLAT, gives=(0, 0)),
    "takes a dataclass": Kind(TakingDataclass, lambda: (Heads(*FLAT(), {"scale": real(K, 1)()[0]}),), (0, 0)),
    "counter in a buffer": Kind(Counter, FLAT),
    "vector quantiser": Kind(VectorQuantiser, FLAT),
    "vector quantiser, frozen parameters": Kind(lambda: VectorQuantiser(frozen=True), FLAT),
    "memory bank": Kind(MemoryBank, FLAT),
    "mixture of experts, load statistics": Kind(Experts, FLAT),
    "GPT-2 block without cache": Kind(gpt2, FIRST, (0, "kept"), holder=WithoutCache, name="gpt2.h.0"),
    "puts results into a list": Kind(Collecting, FLAT, holder=GivesList),
    # What the library refuses.
    "GPT-2 block with cache": Kind(gpt2, FIRST, holder=WithCache, name="gpt2.h.0"),
    "takes a cache object": Kind(Caching, FLAT, holder=GivesCache),
    "changes its weight in forward": Kind(Renormalised, FLAT),
    "Embedding itself": Kind(lambda: nn.Embedding(3, 4), lambda: with_labels()[1:]),
    "conditional on labels": Kind(lambda: Conditional(True), with_labels),
    "additive mask": Kind(MaskedScores, lambda: (*FIRST(), additive(3))),
    "perhaps a table of positions": Kind(Positioned, lambda: (*real(K, K, 4)(), *real(K, 4)())),
    "sparse tensor": Kind(lambda: nn.Linear(4, 3), FLAT, holder=MadeSparse),
    "one sample": Kind(lambda: nn.Linear(4, 3), real(1, 4)),
    "no such axis": Kind(lambda: nn.Linear(4, 3), real(4), options={"batch_axis": 1}),
    "GRU, one sequence without a batch": Kind(lambda: nn.GRU(4, 3), real(3, 4)),
    "mean over the batch": Kind(lambda: Functional(over_batch), FLAT),
    "returns integers": Kind(lambda: Functional(chosen), FLAT),
    "returns no tensor": Kind(lambda: Functional(opaque), FLAT),
}
