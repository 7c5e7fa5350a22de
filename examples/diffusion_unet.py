"""A denoising diffusion model (diffusers' UNet2DModel) on scikit-learn's digits. Coded-smoothing adds three lines:

    coded = CodedSmoothing(unet, blocks=["mid_block"], ratio=1.5)
    with coded.observe():
    loss = loss + weight * coded.penalty()

The middle block gets features and the embedding of the time step; both are encoded. The U-Net itself gets integer time
steps, which can't be mixed.
"""

import argparse

import torch
from diffusers import DDPMScheduler, UNet2DModel
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import mse_loss

from cs_gan import CodedSmoothing


def train(steps: int, seed: int, weight: float) -> nn.Module:
    """Train a denoiser, print its progress, and return it."""
    torch.manual_seed(seed)
    images = torch.from_numpy(load_digits().images).float().unsqueeze(1) / 8 - 1  # (1797, 1, 8, 8) in [-1, 1]
    images, held_out = images[:1500], images[1500:]
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.Adam(unet.parameters(), lr=2e-3)
    coded = CodedSmoothing(unet, blocks=["mid_block"], ratio=1.5)  # coded 1/3

    penalties = []
    for step in range(steps):
        clean = images[torch.randint(len(images), (64,))]
        noise, times = torch.randn_like(clean), torch.randint(1000, (64,))
        noisy = scheduler.add_noise(clean, noise, times)
        with coded.observe():  # coded 2/3
            predicted = unet(noisy, times).sample
        loss = mse_loss(predicted, noise)
        loss = loss + weight * coded.penalty()  # coded 3/3
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            penalties.append(coded.penalty().item())
            print(f"step {step:4d}  loss {loss:.4f}  coded penalty {penalties[-1]:.1e}")
    noise, times = torch.randn_like(held_out), torch.arange(len(held_out)) * 1000 // len(held_out)
    with torch.no_grad():
        error = mse_loss(unet(scheduler.add_noise(held_out, noise, times), times).sample, noise)
    print(f"coded penalty {penalties[0]:.1e} -> {penalties[-1]:.1e},", end=" ")
    print(f"error of the predicted noise on held-out digits {error:.3f} (predicting none: 1)")
    return unet


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weight", type=float, default=0.1, help="of the coded penalty; 0 is plain training")
    train(**vars(parser.parse_args()))
