"""Spectral norm of a whole critic, with one power iteration per step."""

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
    """Divide the weight of each convolution and linear layer of a critic by its spectral norm.

    In the state dict the weights are then ``parametrizations.weight.original``. The current weights are kept. The
    first singular vectors come from torch's global random generator.

    Source: Miyato et al. 2018 (SNGAN), algorithm 1.
    """
    for module in critic.modules():
        if isinstance(module, _LAYERS) and not parametrize.is_parametrized(module, "weight"):
            spectral_norm(module)
    return critic


@contextmanager
def computed_once(network: nn.Module) -> Iterator[None]:
    """A context in which each parametrized weight is computed once: one power iteration per step, outside autocast."""
    parametrized = [module for module in network.modules() if parametrize.is_parametrized(module)]
    if not parametrized:
        yield
        return
    with parametrize.cached():
        for module in parametrized:
            for name in module.parametrizations:  # type: ignore[union-attr]
                getattr(module, name)
        yield
