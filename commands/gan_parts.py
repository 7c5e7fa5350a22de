"""What a GAN's training is made of, built from its recipe and checked."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from commands.gan_data import GanData
from commands.gan_gap import GAP_IMAGES, CriticGap, gap_seed
from cs_gan import CodedSmoothing, Linear
from cs_gan.data import ImageStore
from cs_gan.errors import ConfigError
from cs_gan.randomness import derive_seed
from cs_gan.training import GanConfig, Session, device_options
from models import build_gan


def data(config: GanConfig, session: Session) -> GanData:
    """What loads images in this run's processes."""
    return GanData(config, session.accelerator.local_main_process_first, session.is_main and sys.stderr.isatty())


def critic_gap(
    config: GanConfig, data: GanData, store: ImageStore, device: torch.device
) -> tuple[CriticGap | None, str]:
    """What measures the critic's gap, or None and a line that says why not; neither where nothing is scored."""
    if config.metrics.extractor == "none":
        return None, ""
    held_out, reason = data.held_out(store, GAP_IMAGES, gap_seed(config.seed))
    if held_out is None:
        return None, f"no critic_gap: {reason}"
    return CriticGap(store, held_out, config.seed, device), ""


def trained_on(config: GanConfig, store: ImageStore) -> dict[str, Any]:
    """Which images, for provenance."""
    about = {name: getattr(store, name) for name in ("split", "fingerprint")}
    seed = None if config.data.limit is None else config.data.limit_seed
    return {**about, "count": len(store), "limit_seed": seed}


def networks(
    config: GanConfig, model: dict[str, Any], store: ImageStore, device: torch.device
) -> tuple[nn.Module, nn.Module]:
    """Generator and critic, freshly initialised from the seed.

    Raises:
        ConfigError: for an unknown network, or one for images of another size.
    """
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
    # channels_last is worth 20 to 30 % of a step on CPU, and tensor cores want it too.
    generator.to(device, memory_format=torch.channels_last)
    critic.to(device, memory_format=torch.channels_last)
    return generator, critic


def adam(config: GanConfig, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """Of one network."""
    options = device_options(device, config.training.learning_rate)
    if device.type == "cuda":
        options["capturable"] = True
    return torch.optim.Adam(network.parameters(), betas=config.training.betas, **options)


def coded(config: GanConfig, network: nn.Module, part: str) -> CodedSmoothing | None:
    """What codes blocks of one network, or None; a code that can't be built is refused now."""
    choice, coded = getattr(config.coded, part), config.coded
    if not choice.blocks or not (choice.weight or choice.weight_end):
        return None
    ratio = Linear(coded.ratio_start, coded.ratio_end, levels=coded.levels)
    seed = derive_seed(config.seed, part)
    weight = choice.weight if choice.weight_end is None else Linear(choice.weight, choice.weight_end)
    smoothing = CodedSmoothing(network, choice.blocks, ratio, weight=weight, seed=seed, **coded.options())
    training = config.training
    batch = (part == "generator" and training.generator_batch_size) or training.batch_size
    for step in (0, training.steps):  # now, not hours from here
        smoothing.set_step(step, training.steps)
        smoothing.code(batch)
    return smoothing
