"""Networks, batches and a record of permutations that the tests of attacks share."""

import torch
from torch import nn


def mlp(seed=0, features=(1, 4, 4), classes=5):
    """A smooth network on small images, in double precision so that finite differences mean something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        size = torch.Size(features).numel()
        return nn.Sequential(nn.Flatten(), nn.Linear(size, 12), nn.Tanh(), nn.Linear(12, classes)).double().eval()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(count=8, features=(1, 4, 4), classes=5, seed=0):
    """Images well inside [-1, 1] and labels."""
    draws = generator(seed)
    images = torch.rand(count, *features, generator=draws).double() * 1.6 - 0.8
    return images, torch.randint(classes, (count,), generator=draws)


class Recorder:
    """The permutations that a defence draws: in which order each batch was laid on the nodes."""

    def __init__(self, monkeypatch):
        self.permutations, draw = [], torch.randperm

        def recorded(size, **options):
            order = draw(size, **options)
            self.permutations.append(tuple(order.tolist()))
            return order

        monkeypatch.setattr(torch, "randperm", recorded)

    def take(self):
        taken, self.permutations[:] = list(self.permutations), []
        return taken
