"""Ways through the latents of a generator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def slerp(first: Tensor, last: Tensor, t: Tensor) -> Tensor:  # (d,), (d,), (n,) -> (n, d)
    """Points on the great circle from ``first`` to ``last`` (Shoemake 1985). Lengths are interpolated linearly.

    Between opposite vectors there are many great circles; it takes one of them.
    """
    start, end = first.double(), last.double()
    u, v = functional.normalize(start, dim=0), functional.normalize(end, dim=0)
    cosine = u @ v
    across = v - cosine * u  # the part of v orthogonal to u; its length is the sine of the angle
    angle = torch.atan2(across.norm(), cosine)
    if across.norm() < 1e-12:  # parallel or opposite: any orthogonal direction works
        axis = functional.one_hot(u.abs().argmin(), len(u)).double()
        across = axis - (axis @ u) * u
    t = t.double()[:, None]
    direction = torch.cos(t * angle) * u + torch.sin(t * angle) * functional.normalize(across, dim=0)
    return (direction * torch.lerp(start.norm(), end.norm(), t)).to(first.dtype)
