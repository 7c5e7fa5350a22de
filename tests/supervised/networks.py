"""A classifier small enough to reason about, a batch for it, and one step with less to write."""

import copy

import torch
from torch import nn

from cs_gan.randomness import stream
from cs_gan.supervised import classifier_step

CLASSES = 4
LR = 0.1


def mlp(dtype=torch.float64):
    """(K, 3, 4, 4) -> (K, 4) logits; ``1`` and ``3`` are its linear layers."""
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Tanh(), nn.Linear(8, CLASSES)).to(dtype)


def batch(size=8, dtype=torch.float64, seed=0):
    """Images (K, 3, 4, 4), and labels in turn, so that neighbours differ."""
    images = torch.randn(size, 3, 4, 4, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return images, torch.arange(size) % CLASSES


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=LR)


def step(model, images, labels, seed=0, **options):
    return classifier_step(
        model, sgd(model), images, labels, generator=stream(seed), num_classes=CLASSES, **options
    )  # fmt: skip


def stepped_by_hand(model, loss):
    """A copy of the model after one SGD step on loss(copy)."""
    model = copy.deepcopy(model)
    loss(model).backward()
    sgd(model).step()
    return model
