"""A conditional GAN with hinge loss and spectral norm on scikit-learn's digits. Coded-smoothing adds three lines:

    coded = CodedSmoothing(critic, blocks=["judge"], ratio=1.5)
    with coded.observe():
    critic_loss = critic_loss + weight * coded.penalty()

Labels can't be mixed, so the coded block comes after their embedding. The penalty sums both calls of the critic.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.nn.utils.parametrizations import spectral_norm

from cs_gan import CodedSmoothing


class Critic(nn.Module):
    """A score for an image with its label."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = (spectral_norm(nn.Linear(*size)) for size in ((64, 128), (256, 128), (128, 1)))
        self.features, self.embed = nn.Sequential(first, nn.LeakyReLU(0.2)), nn.Embedding(10, 128)
        self.judge = nn.Sequential(second, nn.LeakyReLU(0.2), third)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:  # (B, 64), (B,) int64 -> (B, 1)
        """Features and embedding first, then the judge."""
        return self.judge(torch.cat([self.features(image), self.embed(label)], dim=1))


def train(steps: int, seed: int, weight: float) -> nn.Module:
    """Train a GAN, print its progress, and return its generator, which takes 32 latents and a one-hot label."""
    torch.manual_seed(seed)
    digits, labels = load_digits(return_X_y=True)
    classifier = LogisticRegression(max_iter=1000).fit(digits / 8 - 1, labels)  # to score the samples with
    digits, labels = torch.from_numpy(digits).float() / 8 - 1, torch.from_numpy(labels)  # (1797, 64) in [-1, 1]
    critic = Critic()
    generator = nn.Sequential(nn.Linear(42, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 64), nn.Tanh())
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.999))
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    coded = CodedSmoothing(critic, blocks=["judge"], ratio=1.5)  # coded 1/3

    penalties, hits = [], []
    for step in range(steps):
        chosen = torch.randint(len(digits), (64,))
        real, label = digits[chosen], labels[chosen]
        fake = generator(torch.cat([torch.randn(64, 32), torch.eye(10)[label]], dim=1))
        with coded.observe():  # coded 2/3
            real_scores, fake_scores = critic(real, label), critic(fake.detach(), label)
        critic_loss = relu(1 - real_scores).mean() + relu(1 + fake_scores).mean()
        critic_loss = critic_loss + weight * coded.penalty()  # coded 3/3
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()

        generator_loss = -critic(fake, label).mean()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            penalties.append(coded.penalty().item())
            hits.append((classifier.predict(fake.detach().numpy()) == label.numpy()).mean())
            print(f"step {step:4d}  critic loss {critic_loss:.3f}  coded penalty {penalties[-1]:.1e}")
    print(f"coded penalty {penalties[0]:.1e} -> {penalties[-1]:.1e},", end=" ")
    print(f"samples that a classifier takes for their label {hits[0]:.0%} -> {hits[-1]:.0%}")
    return generator


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weight", type=float, default=1.0, help="of the coded penalty; 0 is plain training")
    train(**vars(parser.parse_args()))
