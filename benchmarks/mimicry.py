"""torch-mimicry's WGAN-GP networks for benchmarks/wgan_step.py, and our networks with the same weights."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import width_of
from cs_gan.gan import gradient_penalty
from models import build_gan


def mimicry(width: int | None, device: str) -> tuple[Any, Any] | None:
    """torch-mimicry's generator and critic, or None if it isn't installed.

    Its packages import each other and also TensorFlow, which a training step doesn't need. So they are replaced by
    empty packages here, and only the needed modules are imported.
    """
    found = importlib.util.find_spec("torch_mimicry")
    if found is None or not found.submodule_search_locations:
        return None
    (home,) = found.submodule_search_locations
    for name in ("torch_mimicry", "torch_mimicry.nets", "torch_mimicry.nets.gan", "torch_mimicry.nets.wgan_gp"):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(home, *name.split(".")[1:]))]
        sys.modules.setdefault(name, package)
    nets = importlib.import_module("torch_mimicry.nets.wgan_gp.wgan_gp_32")
    sizes = ({}, {}) if width is None else ({"ngf": width}, {"ndf": width})
    torch.manual_seed(0)
    return nets.WGANGPGenerator32(**sizes[0]).to(device), nets.WGANGPDiscriminator32(**sizes[1]).to(device)


PARTS = {"b1": "norm1", "c1": "conv1", "b2": "norm2", "c2": "conv2", "c_sc": "shortcut"}


def our_names(theirs: dict[str, Tensor], first: int) -> dict[str, Tensor]:
    """Rename weights or gradients of its generator (blocks from number 2) or critic (from 1) to our names."""
    ends = {"l1": "stem.0", "b5": "head.0", "c5": "head.2", "l5": "head.linear"}
    found = {}
    for name, value in theirs.items():
        head, *rest = name.split(".")
        if head in ends:
            parts = [ends[head], *rest]
        else:
            parts = [f"blocks.{int(head.removeprefix('block')) - first}", PARTS[rest[0]], *rest[1:]]
        found[".".join(parts)] = value
    return found


def ours_like(theirs: tuple[nn.Module, nn.Module], width: int | None, device: str) -> tuple[nn.Module, nn.Module]:
    """Our networks with torch-mimicry's weights."""
    networks = build_gan("mimicry32", **width_of(width))
    for network, peer, first in zip(networks, theirs, (2, 1), strict=True):
        network.load_state_dict(our_names(peer.state_dict(), first))
        network.to(device).to(memory_format=torch.channels_last)  # as in train_gan.py
    return networks


def require_equal(theirs: tuple[Any, Any], ours: tuple[nn.Module, nn.Module], batch: int, device: str) -> float:
    """The largest relative difference of a loss or gradient with the same images, latents and interpolation.

    torch-mimicry's critic applies ReLU in place, so its shortcuts get rectified inputs, unlike Gulrajani's. For this
    comparison its ReLUs are not in place.

    Raises:
        AssertionError: if the difference is larger than rounding errors.
    """
    in_place = [module for module in theirs[1].modules() if isinstance(module, nn.ReLU)]
    for module in in_place:
        module.inplace = False
    torch.manual_seed(1)
    real, z = torch.randn(batch, 3, 32, 32, device=device), torch.randn(batch, 128, device=device)
    allowed, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    one, other = (gradients(pair, pair is theirs, real, z) for pair in (theirs, ours))
    torch.backends.cudnn.allow_tf32 = allowed
    for module in in_place:
        module.inplace = True
    # Some gradients are 0 up to rounding, such as that of a bias before batch norm. So the scale also includes the
    # largest norm in the network.
    scale = {part: max(float(v.norm()) for k, v in other.items() if k.startswith(part)) for part in ("critic", "gen")}
    errors = {
        name: float((one[name] - value).norm() / (value.norm() + 1e-3 * scale["gen" if name[0] == "g" else "critic"]))
        for name, value in other.items()
    }
    # Rounding of float32 sums of up to 10^5 terms through a dozen layers. At a kink of ReLU the slopes can also differ.
    worst = max(errors, key=lambda name: errors[name])
    assert errors[worst] < 5e-3, f"{worst} differs by {errors[worst]:.2g}"
    return errors[worst]


def gradients(pair: tuple[Any, Any], peer: bool, real: Tensor, z: Tensor) -> dict[str, Tensor]:
    """The critic's loss and the gradients of both losses, by our names."""
    generator, critic = pair
    generator.zero_grad()
    critic.zero_grad()
    fake = generator(z)
    torch.manual_seed(2)  # torch-mimicry draws the interpolation on the CPU
    if peer:
        penalty = critic.compute_gradient_penalty_loss(real, fake.detach(), 10.0)
    else:
        penalty = 10 * gradient_penalty(critic, real, fake, torch.rand(len(real), 1).squeeze(1).to(real.device))
    loss = critic(fake.detach()).mean() - critic(real).mean() + penalty
    loss.backward()
    found = {"critic loss": loss.detach()}
    by_name = {name: p.grad.clone() for name, p in critic.named_parameters()}
    found |= {f"critic {name}": grad for name, grad in (our_names(by_name, 1) if peer else by_name).items()}
    (-critic(fake).mean()).backward()
    by_name = {name: p.grad.clone() for name, p in generator.named_parameters()}
    return found | {f"generator {name}": grad for name, grad in (our_names(by_name, 2) if peer else by_name).items()}


class Quiet:
    """The log that torch-mimicry's steps need. It doesn't read the values, which makes torch-mimicry faster."""

    def add_metric(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""
