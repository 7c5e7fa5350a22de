"""SimCLR (self-supervised learning) on scikit-learn's digits. Coded-smoothing adds four lines to the loop:

    coded = CodedSmoothing(model, blocks=[encoder], ratio=Linear(1.0, 1.5))
    coded.set_step(step, steps)
    with coded.observe():
    loss = loss + weight * coded.penalty()

The penalty sums both views. The second line lets N/K grow, as in the paper. train_ssl.py trains SimCLR from a recipe.
"""

import argparse
from math import pi

import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, normalize

from cs_gan import CodedSmoothing, Linear


def view(x: Tensor) -> Tensor:  # (B, 1, 8, 8) -> (B, 1, 8, 8)
    """Rotate and shift each image a little, and add noise."""
    turn, move = (torch.rand(len(x)) - 0.5) * pi / 4, (torch.rand(2, len(x)) - 0.5) * 0.5
    rows = [turn.cos(), -turn.sin(), move[0], turn.sin(), turn.cos(), move[1]]
    grid = affine_grid(torch.stack(rows, dim=1).view(-1, 2, 3), list(x.shape), align_corners=False)
    return grid_sample(x, grid, align_corners=False) + 0.1 * torch.randn_like(x)


def contrast(a: Tensor, b: Tensor, temperature: float = 0.2) -> Tensor:  # (B, F), (B, F) -> ()
    """NT-Xent: find the other view of the same image among all other views in the batch."""
    views = normalize(torch.cat([a, b]), dim=1)
    similarity = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    return cross_entropy(similarity, torch.arange(len(views)).roll(len(a)))


def probe(encoder: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Accuracy of a linear classifier on frozen features: 300 labels to fit it, the others to score it."""
    with torch.no_grad():
        features = encoder(images).numpy()
    return LogisticRegression(max_iter=2000).fit(features[:300], labels[:300]).score(features[300:], labels[300:])


def train(steps: int, seed: int, weight: float) -> nn.Module:
    """Train an encoder without labels, print its progress, and return it with its projection head."""
    torch.manual_seed(seed)
    digits = load_digits()
    images, labels = torch.from_numpy(digits.images).float().unsqueeze(1) / 16, digits.target  # (1797, 1, 8, 8)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
    model = nn.Sequential(encoder, nn.ReLU(), nn.Linear(64, 32))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    coded = CodedSmoothing(model, blocks=[encoder], ratio=Linear(1.0, 1.5))  # coded 1/4

    untrained, penalties = probe(encoder, images, labels), []
    for step in range(steps):
        x = images[torch.randint(len(images), (128,))]
        coded.set_step(step, steps)  # coded 2/4
        with coded.observe():  # coded 3/4
            first, second = model(view(x)), model(view(x))
        loss = contrast(first, second)
        loss = loss + weight * coded.penalty()  # coded 4/4
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            penalties.append(coded.penalty().item())
            print(f"step {step:4d}  loss {loss:.3f}  coded penalty {penalties[-1]:.1e}")
    print(f"coded penalty {penalties[0]:.1e} -> {penalties[-1]:.1e},", end=" ")
    print(f"accuracy of a linear probe {untrained:.1%} -> {probe(encoder, images, labels):.1%}")
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weight", type=float, default=0.1, help="of the coded penalty; 0 is plain training")
    train(**vars(parser.parse_args()))
