"""Spectral norm of a whole critic, at one power iteration a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

_LAYERS = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def spectrally_normalised(critic: nn.Module) -> nn.Module:
    """The same critic, the weight of each of its convolutions and linear layers divided by its spectral norm.

    Its weights are then ``parametrizations.weight.original`` in the state dict. Makes the critic of weights that are
    drawn already; the first singular vectors come from torch's global generator.

    Source: Miyato et al. 2018 (SNGAN), algorithm 1.
    """
    for module in critic.modules():
        if isinstance(module, _LAYERS) and not parametrize.is_parametrized(module, "weight"):
            spectral_norm(module)
    return critic


@contextmanager
def computed_once(network: nn.Module) -> Iterator[None]:
    """Inside, each parametrized weight is computed once: one power iteration a step, outside of autocast."""
    parametrized = [module for module in network.modules() if parametrize.is_parametrized(module)]
    if not parametrized:
        yield
        return
    with parametrize.cached():
        for module in parametrized:
            for name in module.parametrizations:  # type: ignore[union-attr]
                getattr(module, name)
        yield
