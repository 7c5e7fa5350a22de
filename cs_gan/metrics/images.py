"""Prepare images for an extractor: from a generator's [-1, 1] to uint8 RGB."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cs_gan.errors import MetricError
from cs_gan.randomness import derive_seed, stream
from cs_gan.restore import evaluation_mode, isolated_rng


def check_uint8(images: Tensor, what: str) -> None:
    """Raise MetricError unless images are uint8 (n, 1 or 3, H, W)."""
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
        raise MetricError(
            f"{what}: got {images.dtype} {tuple(images.shape)}, expected uint8 (n, C, H, W) with C = 1 or 3; "
            "to_uint8 converts images in [-1, 1]"
        )


def batches_of(x: Tensor, size: int) -> Iterator[Tensor]:  # (n, ...) -> views of at most (size, ...)
    """Split along the first axis."""
    for start in range(0, len(x), size):
        yield x[start : start + size]


def as_rgb(images: Tensor) -> Tensor:  # (B, 1 or 3, H, W) -> (B, 3, H, W)
    """Grey repeated to three channels."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def to_uint8(images: Tensor) -> Tensor:  # (B, C, H, W) in [-1, 1] -> uint8 (B, C, H, W)
    """round(clamp((x + 1) * 127.5)), the inverse of the usual scaling.

    Raises:
        MetricError: images that aren't floating, of a wrong shape, or not finite (a cast would hide NaN as 0).
    """
    if not images.is_floating_point() or images.dim() != 4 or images.shape[1] not in (1, 3):
        raise MetricError(
            f"the generator returned {images.dtype} {tuple(images.shape)}; expected floating-point images in "
            "[-1, 1], (B, C, H, W) with C = 1 or 3"
        )
    if not bool(torch.isfinite(images).all()):
        raise MetricError("the generator returned NaN or infinite pixels: it has diverged and has no score")
    return ((images.float() + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)


def generated_images(
    generator: nn.Module, count: int, batch_size: int, seed: int, device: torch.device, share: range | None = None
) -> Iterator[Tensor]:  # yields uint8 (B, C, H, W)
    """``count`` images in batches, or those at the positions ``share``: a function of (generator, seed) only.

    ``share`` starts at a batch (see ``Processes.share``). Noise that the generator draws itself depends on
    the seed and the batch number. Between batches and after an error, the global RNG and the training modes are
    restored.

    Raises:
        MetricError: no ``latent_dim``, or images that :func:`to_uint8` refuses.
    """
    # DDP's forward is collective, but the shares of the processes may differ by a batch.
    generator = generator.module if isinstance(generator, DistributedDataParallel) else generator
    latent_dim = _latent_dim(generator)
    share = range(count) if share is None else share
    parameter = next(generator.parameters(), None)
    place = device if parameter is None else parameter.device
    # In one call, because a CPU generator's draws depend on how they are split into calls.
    latents = torch.randn(count, latent_dim, generator=stream(seed, "evaluation"))
    for index, z in enumerate(batches_of(latents[share.start : share.stop], batch_size), share.start // batch_size):
        noise_seed = derive_seed(seed, "evaluation", "noise", index)
        # no_grad, not inference_mode: values that the generator caches here must stay usable in training.
        with (
            evaluation_mode(generator),
            isolated_rng(noise_seed, place),
            torch.no_grad(),
            torch.autocast(place.type, enabled=False),
        ):
            images = generator(z.to(place))
        if images.shape[:1] != z.shape[:1]:
            raise MetricError(f"the generator returned {tuple(images.shape)} for {len(z)} latents")
        yield to_uint8(images)


def _latent_dim(generator: nn.Module) -> int:
    # AveragedModel and similar classes keep the network in .module; torch.compile forwards attributes.
    for candidate in (generator, getattr(generator, "module", None)):
        latent_dim = getattr(candidate, "latent_dim", None)
        if isinstance(latent_dim, int) and latent_dim > 0:
            return latent_dim
    raise MetricError(
        f"{type(generator).__name__} has no positive integer `latent_dim`; set generator.latent_dim to the width "
        "of its latents"
    )
