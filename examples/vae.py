"""A variational autoencoder on scikit-learn's digits. Coded-smoothing adds three lines to the loop:

    coded = CodedSmoothing(vae, blocks=["decoder"], ratio=1.5)
    with coded.observe():
    loss = loss + weight * coded.penalty()

The decoder is coded: a mix of latents should decode to about the same mix of images.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from cs_gan import CodedSmoothing


class VAE(nn.Module):
    """From images of 64 pixels to 16 Gaussian latents and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 2 * 16))
        self.decoder = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (B, 64) -> (B, 64), (B, 16), (B, 16)
        """The reconstruction, and mean and log variance of the latents."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        latent = mean + (log_variance / 2).exp() * torch.randn_like(mean) if self.training else mean
        return self.decoder(latent), mean, log_variance


def train(steps: int, seed: int, weight: float) -> nn.Module:
    """Train a VAE, print its progress, and return it."""
    torch.manual_seed(seed)
    images = torch.from_numpy(load_digits().data).float() / 16  # (1797, 64) in [0, 1]
    images, held_out = images[:1500], images[1500:]
    vae = VAE()
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    coded = CodedSmoothing(vae, blocks=["decoder"], ratio=1.5)  # coded 1/3

    penalties = []
    for step in range(steps):
        x = images[torch.randint(len(images), (64,))]
        with coded.observe():  # coded 2/3
            reconstruction, mean, log_variance = vae(x)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        loss = mse_loss(reconstruction, x) + 2e-3 * divergence
        loss = loss + weight * coded.penalty()  # coded 3/3
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            penalties.append(coded.penalty().item())
            print(f"step {step:4d}  loss {loss:.4f}  coded penalty {penalties[-1]:.1e}")
    vae.eval()
    with torch.no_grad():
        error, blank = mse_loss(vae(held_out)[0], held_out), mse_loss(images.mean(0).expand_as(held_out), held_out)
    print(f"coded penalty {penalties[0]:.1e} -> {penalties[-1]:.1e},", end=" ")
    print(f"error on held-out digits {error:.4f} (their mean image: {blank:.4f})")
    return vae


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weight", type=float, default=0.1, help="of the coded penalty; 0 is plain training")
    train(**vars(parser.parse_args()))
