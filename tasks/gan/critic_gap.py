"""How well the critic distinguishes its training images from held-out real images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cs_gan.data import ImageStore, drawn
from cs_gan.gan import conditioned
from cs_gan.randomness import derive_seed
from cs_gan.restore import evaluation_mode, isolated_rng

GAP_IMAGES = 256


class CriticGap:
    """The mean score of training images minus the mean score of held-out real images.

    Near 0 the critic treats both equally. If it grows, the critic memorises its images. The unit is that of the
    critic's scores, so compare it with their spread, or between steps of one run. Not collective. The critic's weights
    and statistics and all random state are unchanged.

    Args:
        training: the training images; :data:`GAP_IMAGES` of them are scored.
        held_out: at most :data:`GAP_IMAGES` real images.
        seed: of the run; chooses the training images.
        device, memory_format: of the critic.
        conditional: the critic gets the classes of the images too.
    """

    def __init__(
        self,
        training: ImageStore,
        held_out: ImageStore,
        seed: int,
        device: torch.device,
        memory_format: torch.memory_format,
        conditional: bool = False,
    ) -> None:
        rows = drawn(len(training), GAP_IMAGES, gap_seed(seed), training.labels)
        self._device, self._memory_format = device, memory_format
        self._seen, self._unseen = training.batch(rows), held_out.batch(range(len(held_out)))
        self._seen_labels = training.labels[rows] if conditional and training.labels is not None else None
        self._unseen_labels = held_out.labels if conditional else None
        self.about = {"training": len(self._seen), "held_out": len(self._unseen), "split": held_out.split}

    def __call__(self, critic: nn.Module) -> float:
        """The gap of a critic without a wrapper for several processes."""
        with evaluation_mode(critic), isolated_rng(0, self._device), torch.no_grad():
            seen = self._mean(critic, self._seen, self._seen_labels)
            return seen - self._mean(critic, self._unseen, self._unseen_labels)

    def _mean(self, critic: nn.Module, images: Tensor, labels: Tensor | None) -> float:  # (n, C, H, W), (n,)
        images = images.to(self._device, memory_format=self._memory_format)
        labels = None if labels is None else labels.to(self._device)
        return float(conditioned(critic, labels)(images).double().mean())


def gap_seed(seed: int) -> int:
    """The seed that chooses the training and the held-out images in a run."""
    return derive_seed(seed, "critic gap")
