"""The random draws of a GAN's step: a key for each purpose."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from cs_gan.gan import VIEW, diff_augment


class Draws(NamedTuple):
    """The random keys of one update, or (n,) keys each of n updates. One stacked tensor holds them, in this order."""

    latents: Tensor
    alpha: Tensor
    augmentation: Tensor
    diffaugment_real: Tensor
    diffaugment_fake: Tensor
    view_real: Tensor
    view_fake: Tensor


PURPOSES: dict[str, tuple[str, ...]] = {
    "latents": ("latents", "critic"),
    "alpha": ("alpha",),
    "augmentation": ("augmentation",),
    "diffaugment_real": ("diffaugment", "real"),
    "diffaugment_fake": ("diffaugment", "fake"),
    "view_real": ("view", "real"),
    "view_fake": ("view", "fake"),
}
"""What each key of a critic update is derived from, besides seed, number of the update and rank."""
GENERATOR_PURPOSES = {"latents": ("latents", "generator"), "diffaugment_fake": ("diffaugment", "generator")}
"""The keys of the generator's update. The others are 0."""


class View:
    """An augmented view of a batch of images, drawn by ``key``, which each update sets."""

    key: Tensor

    def __call__(self, images: Tensor) -> Tensor:  # (B, C, H, W)
        """Flip and move the images."""
        return diff_augment(images, key=self.key, policy=VIEW)
