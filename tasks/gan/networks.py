"""The two networks of a run: built by name or from classes of someone's own, and tried on one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.data import ImageStore
from cs_gan.data.labelled import labels_of
from cs_gan.errors import ConfigError, DataError
from cs_gan.gan import outputs, spectrally_normalised
from cs_gan.randomness import derive_seed
from cs_gan.restore import evaluation_mode, isolated_rng
from models import SIZED, build_gan, build_own, own_class
from tasks.gan.recipe import GanConfig

TRIED = 2  # samples in the batch that networks are tried on


@dataclass(frozen=True)
class Networks:
    """Generator and critic of a run.

    Attributes:
        generator, critic: with weights drawn from the seed.
        latent_dim: width of the latents.
        labels: (n,) the class of each training image, or None if the networks get no classes.
        about: what a snapshot says of them: the arguments of ``build_gan``, or of ``PretrainedGenerator``.
        memory_format: of weights and images.
    """

    generator: nn.Module
    critic: nn.Module
    latent_dim: int
    labels: Tensor | None
    about: dict[str, Any]
    memory_format: torch.memory_format


def build_networks(config: GanConfig, store: ImageStore) -> Networks:
    """The networks of a recipe, for these images.

    Raises:
        ConfigError: for an unknown name or setting, networks that don't fit the images, a class that can't be imported
            or used, or a penalty that the critic's batch norm rules out.
        DataError: if the networks need classes and the images have none.
    """
    labels = _labels(store) if config.model.conditional else None
    classes = {} if labels is None else {"class_names": list(store.class_names)}
    make = _own if config.model.generator else _named
    generator, critic, about = make(config, store, classes)
    latent_dim = _latent_dim(config, generator)
    if config.critic.spectral_norm:
        spectrally_normalised(critic)
    _refuse_batch_norm(config, critic)
    if config.model.generator:
        _try(config, store, generator, critic, latent_dim, labels)
        about |= {"latent_dim": latent_dim}
        # In channels_last, view() of features fails, and many networks use it.
        return Networks(generator, critic, latent_dim, labels, about, torch.contiguous_format)
    # channels_last saves 20 to 30 % of a step on a CPU, and tensor cores need it.
    return Networks(generator, critic, latent_dim, labels, about, torch.channels_last)


def _labels(store: ImageStore) -> Tensor:
    try:
        return labels_of(store)
    except DataError as error:
        raise DataError(f"model.conditional = true: {error}") from error


# -- by name ---------------------------------------------------------------------------------------


def _named(
    config: GanConfig, store: ImageStore, classes: dict[str, Any]
) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    channels, _, size = store.image_shape
    shape = {"channels": channels} | ({"image_size": size} if config.model.name == SIZED else {})
    about = config.model.arguments(**shape) | classes
    torch.manual_seed(derive_seed(config.seed, "weights"))
    try:
        generator, critic = build_gan(**about)
    except ValueError as error:  # begins with the argument
        section = "data" if str(error).split()[0] in shape else "model"
        raise ConfigError(f"{section}.{error}.") from error
    if generator.image_shape != store.image_shape:
        raise ConfigError(
            f"{config.model.name} makes images of {generator.image_shape}, and {store.description} holds "
            f"{store.image_shape}: set --data.image_size={generator.image_shape[-1]} or another --model.name."
        )
    return generator, critic, about


# -- someone's own ---------------------------------------------------------------------------------


def _own(config: GanConfig, store: ImageStore, classes: dict[str, Any]) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    model = config.model
    assert model.generator
    assert model.critic
    try:
        makers = {part: own_class(getattr(model, part), f"model.{part}") for part in ("generator", "critic")}
        torch.manual_seed(derive_seed(config.seed, "weights"))  # after the imports, which may draw
        built = [build_own(make, model.options, part) for part, make in makers.items()]
    except ValueError as error:
        message = str(error)
        raise ConfigError(f"{message if message.startswith('model.') else f'model.{message}'}.") from error
    about = {"name": model.name, "options": model.options, "image_shape": list(store.image_shape), **classes}
    return built[0], built[1], about


def _latent_dim(config: GanConfig, generator: nn.Module) -> int:
    """The width of the latents, from the recipe or the generator, which then has it."""
    given, found = config.model.latent_dim, getattr(generator, "latent_dim", None)
    if given and isinstance(found, int) and given != found:
        raise ConfigError(
            f"model.latent_dim = {given}, but {config.model.name} has latent_dim = {found}. Leave model.latent_dim "
            "out, or give the class another one in model.options."
        )
    chosen = given or found
    if not isinstance(chosen, int) or chosen < 1:
        raise ConfigError(
            f"model.generator = {config.model.name!r} has no whole number `latent_dim`: give the width of its latents "
            "as --model.latent_dim=<n>."
        )
    if found is None:
        generator.latent_dim = chosen  # type: ignore[assignment]  # scores ask the network for it
    return chosen


def _try(
    config: GanConfig,
    store: ImageStore,
    generator: nn.Module,
    critic: nn.Module,
    latent_dim: int,
    labels: Tensor | None,
) -> None:
    """One small batch through both networks; ConfigError that names the key if it doesn't come out as it must."""
    rows = torch.arange(TRIED) % len(store)
    classes = () if labels is None else (labels[rows],)
    and_classes = " and their classes" if classes else ""
    real = store.batch(rows)
    maker, judge = (f"model.{part} = {getattr(config.model, part)!r}" for part in ("generator", "critic"))
    with evaluation_mode(generator, critic), isolated_rng(0, real.device), torch.no_grad():
        latents = torch.randn(TRIED, latent_dim)
        fake = _called(maker, f"latents of shape ({TRIED}, {latent_dim}){and_classes}", generator, latents, *classes)
        if not isinstance(fake, Tensor) or not fake.is_floating_point() or fake.shape != real.shape:
            raise ConfigError(
                f"{maker} gave {outputs.described(fake)} for {TRIED} latents, but those of {store.description} are "
                f"float tensors of shape {tuple(real.shape)}. Set model.options, or --data.image_size and "
                "--data.channels."
            )
        scores = _called(judge, f"images of shape {tuple(real.shape)}{and_classes}", critic, real, *classes)
        scores = outputs.scores(judge, scores, real, per_image=True)
        if len(scores) != TRIED:
            raise ConfigError(f"{judge} gave {outputs.described(scores)} for {TRIED} images: give one score for each.")


def _called(what: str, on: str, network: Callable[..., Any], *given: Tensor) -> Any:
    try:
        return network(*given)
    except Exception as error:  # of someone's own code, whatever it raises
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{what} failed on {on}: {line}. Set model.options or change the class.") from error


def _refuse_batch_norm(config: GanConfig, critic: nn.Module) -> None:
    """Raise an error for batch norm with a gradient penalty, which needs scores that don't depend on other images."""
    weights = {
        "training.gradient_penalty": config.training.gradient_penalty,
        "critic.r1": config.critic.r1,
        "critic.r2": config.critic.r2,
    }
    used = [key for key, weight in weights.items() if weight]
    for name, module in critic.named_modules():
        if used and isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"{used[0]} = {weights[used[0]]} with batch norm in the critic ({name}): its slope at one image would "
                f"depend on the others of the batch. Take a network without it, or set {' and '.join(used)} to 0."
            )
