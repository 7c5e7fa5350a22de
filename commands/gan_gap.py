"""How far the critic tells the images it was trained on from real ones that it never saw."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cs_gan.core.restore import evaluation_mode, isolated_rng
from cs_gan.data import ImageStore, drawn
from cs_gan.randomness import derive_seed

GAP_IMAGES = 256


class CriticGap:
    """Mean score of training images minus that of held-out real ones.

    Near 0 the critic treats both alike; where it grows, the critic knows its images by heart. Its unit is the
    critic's own, so compare it with the spread of scores, or among steps of one run. Not collective, and nothing of
    the critic changes: neither weights nor statistics nor any random state.

    Args:
        training: what is trained on; as many images of it are scored as are held out.
        held_out: at most :data:`GAP_IMAGES` real images.
        seed: the run's; draws those of ``training``.
        device: the critic's.
    """

    def __init__(self, training: ImageStore, held_out: ImageStore, seed: int, device: torch.device) -> None:
        rows = drawn(len(training), GAP_IMAGES, gap_seed(seed), training.labels)
        self._device = device
        self._seen, self._unseen = training.batch(rows), held_out.batch(range(len(held_out)))
        self.about = {"training": len(self._seen), "held_out": len(self._unseen), "split": held_out.split}

    def __call__(self, critic: nn.Module) -> float:
        """The gap of a critic that isn't wrapped for several processes."""
        with evaluation_mode(critic), isolated_rng(0, self._device), torch.no_grad():
            return self._mean(critic, self._seen) - self._mean(critic, self._unseen)

    def _mean(self, critic: nn.Module, images: Tensor) -> float:  # (n, C, H, W)
        images = images.to(self._device, memory_format=torch.channels_last)
        return float(critic(images).double().mean())


def gap_seed(seed: int) -> int:
    """What draws both sides in a run of this seed."""
    return derive_seed(seed, "critic gap")
