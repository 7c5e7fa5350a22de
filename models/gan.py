"""GAN pairs by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from models.base import Critic, Generator
from models.conditional import ConditionalCritic, ConditionalGenerator
from models.dcgan import DCGANCritic, DCGANGenerator
from models.resnet import ResNetCritic32, ResNetCritic64, ResNetGenerator32, ResNetGenerator64
from models.sized_resnet import SizedCritic, SizedGenerator

# All take channels and width, generators also latent_dim. `partial` sets other defaults.
_PAIRS: dict[str, tuple[Callable[..., Generator], Callable[..., Critic]]] = {
    "paper32": (ResNetGenerator32, ResNetCritic32),
    "paper64": (ResNetGenerator64, ResNetCritic64),
    "mimicry32": (partial(ResNetGenerator32, width=256, upsampling="bilinear"), ResNetCritic32),
    "dcgan16": (partial(DCGANGenerator, image_size=16), partial(DCGANCritic, image_size=16)),
    "dcgan32": (partial(DCGANGenerator, image_size=32), partial(DCGANCritic, image_size=32)),
    "dcgan64": (partial(DCGANGenerator, image_size=64), partial(DCGANCritic, image_size=64)),
    "resnet": (SizedGenerator, SizedCritic),
}
SIZED = "resnet"
"""The pair that also takes image_size, and classes."""
_OVERRIDES = ("channels", "latent_dim", "width", "generator_width", "critic_width")

GAN_NAMES: tuple[str, ...] = tuple(_PAIRS)


def build_gan(name: str, **overrides: Any) -> tuple[Generator, Critic]:
    """Build the generator and the critic called `name`, with new weights drawn from torch's global generator.

    Overrides for all names: `channels` of the images (3), `latent_dim` (128), and `width`, the base channel count of
    both networks. `generator_width` and `critic_width` replace `width` for one of them. Default widths: paper32 128,
    paper64 64, mimicry32 256 (generator) and 128 (critic), dcgan* 64, resnet 64. resnet also takes `image_size`, 16, 32
    (the default), 64 or 128, and `class_names`. With these both networks are class-conditional: they take labels, int64
    (B,), as second argument.

    Shapes: generator (B, latent_dim) -> (B, channels, R, R) in [-1, 1]; critic (B, channels, R, R) -> (B,).
    Errors: ValueError for an unknown name or override (with similar names), or a value that isn't a positive integer.
    The message begins with the argument.
    """
    if name not in _PAIRS:
        raise ValueError(f"name = {name!r} is unknown{_nearest(name, GAN_NAMES)}")
    class_names: Sequence[str] = overrides.pop("class_names", ())
    known = (*_OVERRIDES, "image_size") if name == SIZED else _OVERRIDES
    for key, value in overrides.items():
        if key not in known:
            raise ValueError(f"{key} = {value!r} is no setting of {name}{_nearest(key, known)}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{key} = {value!r} must be a positive integer")
    if class_names and name != SIZED:
        raise ValueError(f"name = {name!r} has no classes; take {SIZED}, which has a class-conditional form")

    make_generator, make_critic = _PAIRS[name]
    if class_names:
        make_generator = partial(ConditionalGenerator, num_classes=len(class_names))
        make_critic = partial(ConditionalCritic, num_classes=len(class_names))
    generator = make_generator(**_select(overrides, "generator_width", ("image_size", "channels", "latent_dim")))
    critic = make_critic(**_select(overrides, "critic_width", ("image_size", "channels")))
    return generator, critic


def _select(overrides: dict[str, int], width_key: str, keys: tuple[str, ...]) -> dict[str, int]:
    chosen = {key: overrides[key] for key in keys if key in overrides}
    for key in ("width", width_key):  # the more specific key comes last and wins
        if key in overrides:
            chosen["width"] = overrides[key]
    return chosen


def _nearest(word: str, valid: tuple[str, ...]) -> str:
    close = get_close_matches(str(word), valid, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ";"
    return f"{hint} Valid: {', '.join(valid)}"
