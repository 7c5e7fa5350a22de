"""The precision of losses and scores."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """In float32 or better: sums and squares in half precision would keep only two or three digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
