"""Blocks of the contract that keep state from one call to the next."""

from __future__ import annotations

import pytest
import torch
from torch import nn


class Counter(nn.Module):
    """Counts samples in a buffer, calls and sizes in attributes, and remembers its last output."""

    keeps_state = True

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("samples", torch.zeros((), dtype=torch.long))
        self.calls, self.sizes, self.last = 0, [], None

    def forward(self, x):
        if self.training:
            self.samples += len(x)
        self.calls += 1
        self.sizes.append(len(x))
        self.last = self.linear(x).tanh()
        return self.last


class VectorQuantiser(nn.Module):
    """A codebook that follows its inputs by a moving average (van den Oord et al. 2017, appendix A.1).

    With ``frozen`` the averages are parameters without gradient, changed through ``.data``, as many write it.
    """

    keeps_state = True

    def __init__(self, frozen=False):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        for name, value in (("codebook", torch.randn(6, 4)), ("counts", torch.ones(6)), ("sums", torch.randn(6, 4))):
            if frozen:
                setattr(self, name, nn.Parameter(value, requires_grad=False))
            else:
                self.register_buffer(name, value)

    def forward(self, x):
        h = self.linear(x).tanh()
        nearest = torch.cdist(h, self.codebook).argmin(1)
        chosen = self.codebook[nearest]
        if self.training:
            # F.one_hot reads its input on the host, which a CUDA graph can't.
            member = (nearest[:, None] == torch.arange(6, device=h.device)).to(h.dtype)
            self.counts.data.mul_(0.9).add_(member.sum(0), alpha=0.1)
            self.sums.data.mul_(0.9).add_(member.T @ h.detach(), alpha=0.1)
            self.codebook.data.copy_(self.sums / self.counts[:, None])
        return h.sin() + h + (chosen - h).detach()


class MemoryBank(nn.Module):
    """Attends to a queue of earlier features, which the batch then enters."""

    keeps_state = True

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("queue", torch.randn(12, 4))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        h = self.linear(x).tanh()
        mixed = h + (h @ self.queue.clone().T).softmax(1) @ self.queue.clone()
        if self.training:
            where = (self.position + torch.arange(len(h))) % len(self.queue)
            self.queue[where] = h.detach().to(self.queue.dtype)
            self.position.add_(len(h)).remainder_(len(self.queue))
        return mixed


class Experts(nn.Module):
    """A soft mixture of experts whose biases follow the load (Wang et al. 2024, arXiv 2408.15664)."""

    keeps_state = True

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(4, 3)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.register_buffer("load", torch.zeros(3))
        self.register_buffer("bias", torch.zeros(3))

    def forward(self, x):
        shares = (self.router(x) + self.bias).softmax(1)
        if self.training:
            self.load += shares.detach().sum(0)
            self.bias += 0.1 * (self.load.mean() - self.load).sign()
        return sum(shares[:, i, None] * expert(x).tanh() for i, expert in enumerate(self.experts))


class Renormalised(nn.Module):
    """Keeps the rows of a trained weight at length one, as some critics do, by changing it in its forward."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        with torch.no_grad():
            self.linear.weight /= self.linear.weight.norm(dim=1, keepdim=True)
        return self.linear(x).tanh()


class Cache:
    """What Hugging Face's key-value caches are to a block: an object that each call makes longer."""

    def __init__(self):
        self.layers = []


class Caching(nn.Module):
    """Attends to all that it was called with, through a cache that it is given."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x, cache):
        cache.layers.append(self.linear(x))
        return torch.stack(cache.layers).sum(0).tanh()


class GivesCache(nn.Module):
    """A model that makes a new cache for every call."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return self.block(x, Cache())


class Collecting(nn.Module):
    """Puts its hidden layer into a list that it is given."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x, found):
        found.append(self.linear(x))
        return found[-1].tanh()


class GivesList(GivesCache):
    def forward(self, x):
        return self.block(x, [])


def gpt2():
    """A GPT-2 with one block, from Hugging Face's transformers."""
    transformers = pytest.importorskip("transformers")
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 4, "vocab_size": 3, "n_positions": 8}
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    model = transformers.GPT2Model(transformers.GPT2Config(**sizes, **off))
    model.wte.requires_grad_(False)  # it is called on embeddings
    return model


class WithCache(nn.Module):
    """Calls it on embeddings; the coded block is the transformer block."""

    cached = True

    def __init__(self, gpt2):
        super().__init__()
        self.gpt2 = gpt2

    def forward(self, x):
        return self.gpt2(inputs_embeds=x, use_cache=self.cached).last_hidden_state


class WithoutCache(WithCache):
    cached = False
