"""The precision of losses and scores."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """In float32 or better: sums and squares in half precision would keep only two or three digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def cpu_multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16; without them it is slower than float32 (docs/performance.md).

    True where torch does not say (older versions).
    """
    if not hasattr(torch.cpu, "get_capabilities"):
        return True
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"))
