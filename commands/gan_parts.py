"""The parts of a GAN's training, built from its recipe and checked."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from commands.critic_gap import GAP_IMAGES, CriticGap, gap_seed
from commands.gan_data import GanData
from cs_gan import CodedSmoothing, HeldShare
from cs_gan.data import ImageStore
from cs_gan.errors import ConfigError
from cs_gan.gan import (
    VIEW,
    Consistency,
    FeatureNorm,
    LeCam,
    LeCamTerm,
    Term,
    ZeroCentred,
    diff_augment,
    spectrally_normalised,
)
from cs_gan.randomness import derive_seed
from cs_gan.training import GanConfig, device_options
from models import build_gan


def critic_gap(
    config: GanConfig, data: GanData, store: ImageStore, device: torch.device
) -> tuple[CriticGap | None, str]:
    """The measurement of the critic's gap, or None and the reason (empty if the recipe has no scores)."""
    if config.metrics.extractor == "none":
        return None, ""
    held_out, reason = data.held_out(store, GAP_IMAGES, gap_seed(config.seed))
    if held_out is None:
        return None, f"no critic_gap: {reason}"
    return CriticGap(store, held_out, config.seed, device), ""


def trained_on(config: GanConfig, store: ImageStore) -> dict[str, Any]:
    """The description of the training images, for provenance."""
    about = {name: getattr(store, name) for name in ("split", "fingerprint")}
    seed = None if config.data.limit is None else config.data.limit_seed
    return {**about, "count": len(store), "limit_seed": seed}


def networks(
    config: GanConfig, model: dict[str, Any], store: ImageStore, device: torch.device
) -> tuple[nn.Module, nn.Module]:
    """Generator and critic with weights drawn from the seed; ConfigError for an unknown name or another image size."""
    torch.manual_seed(derive_seed(config.seed, "weights"))
    try:
        generator, critic = build_gan(**model)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if generator.image_shape != store.image_shape:
        raise ConfigError(
            f"{config.model.name} makes images of {generator.image_shape}, and {store.description} holds "
            f"{store.image_shape}: set --data.image_size={generator.image_shape[-1]} or another --model.name."
        )
    if config.critic.spectral_norm:
        spectrally_normalised(critic)
    _refuse_batch_norm(config, critic)
    # channels_last saves 20 to 30 % of a step on a CPU, and tensor cores need it.
    generator.to(device, memory_format=torch.channels_last)
    critic.to(device, memory_format=torch.channels_last)
    return generator, critic


def _refuse_batch_norm(config: GanConfig, critic: nn.Module) -> None:
    """Raise an error for batch norm with a gradient penalty, which needs scores that don't depend on other images."""
    given = {
        "training.gradient_penalty": config.training.gradient_penalty,
        "critic.r1": config.critic.r1,
        "critic.r2": config.critic.r2,
    }
    used = [key for key, weight in given.items() if weight]
    for name, module in critic.named_modules():
        if used and isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"{used[0]} = {given[used[0]]} with batch norm in the critic ({name}): its slope at one image would "
                f"depend on the others of the batch. Take a network without it, or set {' and '.join(used)} to 0."
            )


def anchors(config: GanConfig, device: torch.device) -> LeCam | None:
    """The moving averages of LeCam, or None if its weight is 0."""
    lecam = config.critic.lecam
    return LeCam(lecam.decay).to(device) if lecam.weight else None


def terms(config: GanConfig, critic: nn.Module, lecam: LeCam | None, views: Tensor) -> list[Term]:
    """The additional terms of the critic's loss.

    Args:
        critic: the network without a wrapper.
        lecam: the result of :func:`anchors`.
        views: (2,) keys for the augmented views of real and of fake images.
    """
    given = config.critic
    found: list[Term] = []
    for on, gamma in (("real", given.r1), ("fake", given.r2)):
        if gamma:
            found.append(ZeroCentred(gamma, on))
    each = (("real", given.consistency.weight), ("fake", given.consistency.fake_weight))
    for (on, weight), key in zip(each, views, strict=True):
        if weight:
            found.append(Consistency(weight, partial(diff_augment, key=key, policy=VIEW), on))
    if lecam:
        found.append(LeCamTerm(given.lecam.weight, lecam))
    if given.feature_norm.weight:
        found.append(FeatureNorm(given.feature_norm.weight, given.feature_norm.block))
        found[-1].watching(critic)  # raises an error now if the critic doesn't have the block
    return found


def adam(config: GanConfig, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser of one network."""
    options = device_options(device, config.training.learning_rate)
    if device.type == "cuda":
        options["capturable"] = True
    return torch.optim.Adam(network.parameters(), betas=config.training.betas, **options)


def coded(config: GanConfig, network: nn.Module, part: str) -> CodedSmoothing | None:
    """The CodedSmoothing of one network, or None. Raises an error now for a code that can't be built."""
    choice, training = getattr(config.coded, part), config.training
    batch = (part == "generator" and training.generator_batch_size) or training.batch_size
    seed = derive_seed(config.seed, part)
    device = next(network.parameters()).device
    weight = HeldShare(choice.share, start=choice.weight or 1e-3).to(device) if choice.share else choice.schedule
    return config.coded.attach(network, choice.active_blocks, training, seed, batch, weight)
