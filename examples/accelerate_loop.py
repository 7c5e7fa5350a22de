"""A plain Accelerate loop: digits from 300 labels. Coded-smoothing adds three lines to it:

    coded = CodedSmoothing(model, blocks=[""], ratio=1.0)
    with coded.observe():
    loss = loss + weight * coded.penalty()

The empty name is the model itself. Attach before prepare(), because it may wrap the model and rename its blocks. With
several processes, each process codes its own batch.
"""

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split

from cs_gan import CodedSmoothing


def train(steps: int, seed: int, weight: float) -> nn.Module:
    """Train a classifier, print its progress, and return it."""
    set_seed(seed)
    accelerator = Accelerator()
    x, y = load_digits(return_X_y=True)
    data = TensorDataset(torch.from_numpy(x).float() / 16, torch.from_numpy(y))
    few, held_out = random_split(data, [300, len(data) - 300])
    # A spline needs at least two samples, so no short last batch.
    loader = DataLoader(few, batch_size=64, shuffle=True, drop_last=True)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    coded = CodedSmoothing(model, blocks=[""], ratio=1.0)  # coded 1/3
    test_loader = DataLoader(held_out, batch_size=256)
    model, optimizer, loader, test_loader = accelerator.prepare(model, optimizer, loader, test_loader)

    step, penalties = 0, []
    while step < steps:
        for x, y in loader:
            with coded.observe():  # coded 2/3
                logits = model(x)
            loss = cross_entropy(logits, y)
            loss = loss + weight * coded.penalty()  # coded 3/3
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            if step % max(1, steps // 10) == 0 or step == steps - 1:
                penalties.append(coded.penalty().item())
                accelerator.print(f"step {step:4d}  loss {loss:.3f}  coded penalty {penalties[-1]:.1e}")
            step += 1
            if step == steps:
                break
    model.eval()
    with torch.no_grad():
        hits = [accelerator.gather_for_metrics(model(x).argmax(1) == y) for x, y in test_loader]
    accuracy = torch.cat(hits).float().mean()
    accelerator.print(f"coded penalty {penalties[0]:.1e} -> {penalties[-1]:.1e},", end=" ")
    accelerator.print(f"accuracy on the other {len(held_out)} digits {accuracy:.1%}")
    trained: nn.Module = accelerator.unwrap_model(model)
    return trained


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weight", type=float, default=0.5, help="of the coded penalty; 0 is plain training")
    train(**vars(parser.parse_args()))
