"""Networks only: torch modules that own no training and don't know that they are wrapped."""

from __future__ import annotations

from models.base import Critic, Generator
from models.gan import GAN_NAMES, build_gan

__all__ = ["GAN_NAMES", "Critic", "Generator", "build_gan"]
