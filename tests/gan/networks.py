"""Networks small enough to reason about, and the method written out by hand."""

import torch
from torch import nn

from cs_gan import SplineCode

IMAGE = (3, 2, 2)


class TinyCritic(nn.Module):
    """(B, 3, 2, 2) -> (B,); its ``body`` is the block that tests code."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh())
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.body(x)).squeeze(1)


class TinyGenerator(nn.Module):
    """(B, 5) -> (B, 3, 2, 2)."""

    latent_dim = 5

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.Tanh())
        self.head = nn.Linear(8, 12)

    def forward(self, z):
        return self.head(self.body(z)).unflatten(1, IMAGE)


def batches(size, seed=0):
    """Real images, fake images and alphas, in float32."""
    draw = torch.Generator().manual_seed(seed)
    real, fake = torch.randn(2, size, *IMAGE, generator=draw)
    return real, fake, torch.rand(size, generator=draw)


def naive_gradient_penalty(critic, real, fake, alpha):
    """One sample at a time, as in algorithm 1 of Gulrajani et al. 2017; differentiable."""
    terms = []
    for x, y, a in zip(real, fake, alpha, strict=True):
        between = (a * x + (1 - a) * y).detach().requires_grad_()
        (slope,) = torch.autograd.grad(critic(between[None]).sum(), between, create_graph=True)
        terms.append((slope.square().sum().sqrt() - 1) ** 2)
    return torch.stack(terms).mean()


def naive_coded_penalty(block, x, ratio):
    """Mean squared difference between f(x) and D f(E x); differentiable."""
    code = SplineCode(len(x), round(ratio * len(x)))
    encoder, decoder = code.encoder.to(x.dtype), code.decoder.to(x.dtype)
    coded = (encoder @ x.flatten(1)).view(-1, *x.shape[1:])
    return (decoder @ block(coded).flatten(1) - block(x).flatten(1)).square().mean()


def assert_same(these, those, rtol=0.0, atol=0.0):
    """Two sequences of tensors agree; to the bit by default."""
    for this, that in zip(these, those, strict=True):
        torch.testing.assert_close(this, that, rtol=rtol, atol=atol)
