"""Corruptions made on the fly, to measure distribution shift on any test set.

These are not those of CIFAR-10-C: its images, code and parameters are not used, and half of its kinds are missing. Use
these accuracies only to compare networks with each other, never with CIFAR-10-C numbers. For those use
:func:`cs_gan.data.load_shifted`. JPEG compression is Pillow's, and its result depends on Pillow's libjpeg.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cs_gan.data.memory import allocate
from cs_gan.data.store import ImageStore, describe
from cs_gan.errors import DataError
from cs_gan.names import did_you_mean
from cs_gan.randomness import stream

SEVERITIES = (1, 2, 3, 4, 5)
_CHUNK = 256  # images at a time: as floats, all images would take four times the store's memory

Generators = Sequence[torch.Generator]  # one for each image


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption.

    Attributes:
        apply: (B, C, H, W) uint8, strength, a generator for each image -> the same shape, uint8.
        strengths: for severities 1 to 5.
        meaning: what the strength is.
    """

    apply: Callable[[Tensor, float, Generators], Tensor]
    strengths: tuple[float, float, float, float, float]
    meaning: str


def corrupted(store: ImageStore, name: str, severity: int, *, seed: int = 0) -> ImageStore:
    """The store with all images corrupted and the same labels.

    The noise on an image depends only on (seed, name, its index); all severities use the same draw.

    Args:
        store: the images, not modified.
        name: a key of :data:`CORRUPTIONS`.
        severity: 1 to 5.
        seed: for the noise; the other corruptions draw nothing.

    Raises:
        DataError: for unknown names or severities, and saturation of grey images.
    """
    _check(store.images, name, severity)
    kind, (images, mapped) = CORRUPTIONS[name], allocate(tuple(store.images.shape))
    for start in range(0, len(images), _CHUNK):
        indices = range(start, min(start + _CHUNK, len(images)))
        generators = [stream(seed, "corruption", name, i) for i in indices] if kind.apply in _DRAWN else []
        chunk = slice(indices.start, indices.stop)
        images[chunk] = kind.apply(store.images[chunk], kind.strengths[severity - 1], generators)
    split = f"{store.split}, {name} {severity}"
    description = describe(store.name, split + store.remark, images, mapped, store.class_names, store.labels)
    return replace(store, images=images, split=split, description=description)


def _check(images: Tensor, name: str, severity: int) -> None:
    call = f"corrupted({name!r}, {severity=})"
    if name not in CORRUPTIONS:
        hint = did_you_mean(name, CORRUPTIONS, most=1, show=repr)
        raise DataError(f"{call}: known corruptions are {', '.join(CORRUPTIONS)}. {hint}".rstrip())
    if severity not in SEVERITIES:
        raise DataError(f"{call}: give a severity of 1 to 5.")
    if images.shape[1] not in (1, 3):
        raise DataError(f"{call}: images have {images.shape[1]} channels; give grey or RGB ones.")
    if name == "saturation" and images.shape[1] != 3:
        raise DataError(f"{call}: grey images have no saturation. Choose another corruption.")


# -- the kinds -------------------------------------------------------------------------------------


def _bytes(x: Tensor) -> Tensor:  # float, 0 ... 255 -> uint8
    return x.round_().clamp_(0, 255).to(torch.uint8)


def _gaussian_noise(images: Tensor, strength: float, generators: Generators) -> Tensor:
    noise = torch.stack([torch.randn(images.shape[1:], generator=g) for g in generators])
    return _bytes(noise.mul_(255 * strength).add_(images))


def _shot_noise(images: Tensor, strength: float, generators: Generators) -> Tensor:
    rates = images * (strength / 255)
    counts = torch.stack([torch.poisson(rate, generator=g) for rate, g in zip(rates, generators, strict=True)])
    return _bytes(counts.mul_(255 / strength))


def _impulse_noise(images: Tensor, strength: float, generators: Generators) -> Tensor:
    uniform = torch.stack([torch.rand((1, *images.shape[2:]), generator=g) for g in generators])
    black = images.masked_fill(uniform < strength / 2, 0)
    return black.masked_fill_(uniform >= 1 - strength / 2, 255)


def _gaussian_blur(images: Tensor, strength: float, _: Generators) -> Tensor:
    side = min(images.shape[2:])
    sigma = strength * side
    reach = min(math.ceil(3 * sigma), (side - 1) // 2)
    return _transform("gaussian_blur", images, [2 * reach + 1] * 2, [sigma, sigma]) if reach else images


def _pixelate(images: Tensor, strength: float, _: Generators) -> Tensor:
    height, width = images.shape[2:]
    small = [max(1, round(strength * height)), max(1, round(strength * width))]
    from torchvision.transforms import InterpolationMode

    shrunk = _transform("resize", images, small, InterpolationMode.BILINEAR, antialias=True)
    return _transform("resize", shrunk, [height, width], InterpolationMode.NEAREST_EXACT)


def _jpeg(images: Tensor, strength: float, _: Generators) -> Tensor:
    # By Pillow: torchvision's own encoder is deprecated.
    out = torch.empty_like(images, memory_format=torch.contiguous_format)
    grey = images.shape[1] == 1
    for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):  # (H, W, C)
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if grey else image).save(file, "JPEG", quality=int(strength))
        with Image.open(file, formats=("JPEG",)) as opened:
            out[i] = torch.from_numpy(np.array(opened).reshape(image.shape)).permute(2, 0, 1)
    return out


def _adjusted(name: str) -> Callable[[Tensor, float, Generators], Tensor]:
    return lambda images, strength, _: _transform(name, images, strength)


def _transform(name: str, images: Tensor, *settings: Any, **options: Any) -> Tensor:
    from torchvision.transforms.v2 import functional  # here, because its import takes longer than torch's

    return torch.as_tensor(getattr(functional, name)(images, *settings, **options))


CORRUPTIONS = {
    "gaussian_noise": Corruption(_gaussian_noise, (0.03, 0.06, 0.1, 0.15, 0.2), "standard deviation, white being 1"),
    "shot_noise": Corruption(_shot_noise, (200, 80, 40, 20, 10), "photons that make white"),
    "impulse_noise": Corruption(_impulse_noise, (0.01, 0.03, 0.06, 0.1, 0.2), "share of pixels turned black or white"),
    "gaussian_blur": Corruption(_gaussian_blur, (0.02, 0.03, 0.04, 0.055, 0.075), "sigma, the shorter side being 1"),
    "pixelate": Corruption(_pixelate, (0.8, 0.65, 0.5, 0.4, 0.3), "side of the small image, the old one being 1"),
    "jpeg": Corruption(_jpeg, (60, 40, 25, 15, 8), "JPEG quality"),
    "brightness": Corruption(_adjusted("adjust_brightness"), (1.2, 1.4, 1.7, 2.1, 2.6), "factor on every value"),
    "darkness": Corruption(_adjusted("adjust_brightness"), (0.8, 0.6, 0.45, 0.3, 0.2), "factor on every value"),
    "contrast": Corruption(
        _adjusted("adjust_contrast"), (0.75, 0.6, 0.45, 0.3, 0.2), "factor on the distance from the mean grey"
    ),
    "saturation": Corruption(
        _adjusted("adjust_saturation"), (0.7, 0.5, 0.3, 0.15, 0), "factor on the distance from grey"
    ),
}
"""All kinds of corruption by name."""

_DRAWN = (_gaussian_noise, _shot_noise, _impulse_noise)  # the kinds with random draws
