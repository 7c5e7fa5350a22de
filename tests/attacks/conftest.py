import pytest
import torch
from torch import nn

from cs_gan.randomness import stream
from tests.attacks.networks import mlp


@pytest.fixture(scope="session")
def digits():
    """A small network trained on scikit-learn's digits for a second, and 40 test images in [-1, 1]."""
    datasets = pytest.importorskip("sklearn.datasets")
    data = datasets.load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    labels = torch.from_numpy(data.target).long()
    order = torch.randperm(len(images), generator=stream("digits test"))
    images, labels = images[order], labels[order]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(120):
            loss = nn.functional.cross_entropy(network(images[:600]), labels[:600])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval().requires_grad_(True), images[-40:].contiguous(), labels[-40:].contiguous()


@pytest.fixture
def network():
    return mlp()
