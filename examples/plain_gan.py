"""A plain PyTorch GAN (non-saturating loss) on scikit-learn's digits. Coded-smoothing adds three lines to the loop:

    coded = CodedSmoothing(critic, blocks=["1"], ratio=1.5)
    with coded.observe():
    critic_loss = critic_loss + weight * coded.penalty()

The critic's second convolution also runs on coded mixes of each batch of real images.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import softplus

from cs_gan import CodedSmoothing


def down(inputs: int, outputs: int) -> nn.Module:
    """A convolution that halves the image."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2))


def up(inputs: int, outputs: int) -> nn.Module:
    """A convolution that doubles the image."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def energy_distance(a: Tensor, b: Tensor) -> float:  # (N, F), (M, F)
    """0 if both samples have the same distribution, and larger the more they differ."""
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def train(steps: int, seed: int, weight: float) -> nn.Module:
    """Train a GAN, print its progress, and return its generator."""
    torch.manual_seed(seed)
    digits = torch.from_numpy(load_digits().images).float().unsqueeze(1) / 8 - 1  # (1797, 1, 8, 8) in [-1, 1]
    critic = nn.Sequential(down(1, 16), down(16, 32), nn.Flatten(), nn.Linear(32 * 2 * 2, 1))
    body = nn.Sequential(nn.Linear(32, 64 * 2 * 2), nn.Unflatten(1, (64, 2, 2)), up(64, 32), up(32, 16))
    generator = nn.Sequential(body, nn.Conv2d(16, 1, 3, padding=1), nn.Tanh())
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.999))
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    coded = CodedSmoothing(critic, blocks=["1"], ratio=1.5)  # coded 1/3

    penalties, distances = [], []
    for step in range(steps):
        real = digits[torch.randint(len(digits), (64,))]
        fake = generator(torch.randn(64, 32))
        with coded.observe():  # coded 2/3
            real_scores = critic(real)
        critic_loss = softplus(-real_scores).mean() + softplus(critic(fake.detach())).mean()
        critic_loss = critic_loss + weight * coded.penalty()  # coded 3/3
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()

        generator_loss = softplus(-critic(fake)).mean()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            penalties.append(coded.penalty().item())
            distances.append(energy_distance(fake.detach().flatten(1), digits.flatten(1)))
            print(f"step {step:4d}  critic loss {critic_loss:.3f}  coded penalty {penalties[-1]:.1e}")
    print(f"coded penalty {penalties[0]:.1e} -> {penalties[-1]:.1e},", end=" ")
    print(f"energy distance of samples to digits {distances[0]:.2f} -> {distances[-1]:.2f}")
    return generator


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weight", type=float, default=1.0, help="of the coded penalty; 0 is plain training")
    train(**vars(parser.parse_args()))
