"""Networks that also take the classes of their batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def conditioned(network: nn.Module, labels: Tensor | None) -> Callable[[Tensor], Any]:
    """The network as a function of its first argument, for these labels; without labels the network itself."""
    return network if labels is None else lambda x: network(x, labels)
