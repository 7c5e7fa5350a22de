"""A Hugging Face vision transformer on scikit-learn's digits. Coded-smoothing adds three lines to the loop:

    coded = CodedSmoothing(vit, blocks=["vit.layers.1"], ratio=1.5)
    with coded.observe():
    loss = loss + weight * coded.penalty()

Block names are those of vit.named_modules(). RandomizedCodedInference can wrap the whole model for serving. It returns
the model's own output class.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from cs_gan import CodedSmoothing, RandomizedCodedInference


def train(steps: int, seed: int, weight: float) -> nn.Module:
    """Train a transformer, print its progress, and return it."""
    torch.manual_seed(seed)
    digits = load_digits()
    images, labels = torch.from_numpy(digits.images).float().unsqueeze(1) / 8 - 1, torch.from_numpy(digits.target)
    images, held_out, labels, true = images[:1500], images[1500:], labels[:1500], labels[1500:]
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_labels=10,
    )
    vit = ViTForImageClassification(config)
    optimizer = torch.optim.Adam(vit.parameters(), lr=2e-3)
    coded = CodedSmoothing(vit, blocks=["vit.layers.1"], ratio=1.5)  # coded 1/3

    penalties = []
    for step in range(steps):
        chosen = torch.randint(len(images), (64,))
        with coded.observe():  # coded 2/3
            loss = vit(pixel_values=images[chosen], labels=labels[chosen]).loss
        loss = loss + weight * coded.penalty()  # coded 3/3
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            penalties.append(coded.penalty().item())
            print(f"step {step:4d}  loss {loss:.3f}  coded penalty {penalties[-1]:.1e}")
    vit.eval()
    defended = RandomizedCodedInference(vit, ratio=4.0, votes=4, seed=seed)
    with torch.no_grad():
        plain, randomized = [(f(held_out).logits.argmax(1) == true).float().mean() for f in (vit, defended)]
    print(f"coded penalty {penalties[0]:.1e} -> {penalties[-1]:.1e},", end=" ")
    print(f"accuracy on held-out digits {plain:.1%}, under randomized coded inference {randomized:.1%}")
    return vit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weight", type=float, default=0.1, help="of the coded penalty; 0 is plain training")
    train(**vars(parser.parse_args()))
