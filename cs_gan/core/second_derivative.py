"""The forward pass of what will be differentiated twice: the one place that chooses kernels for it."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch.nn.attention import SDPBackend, sdpa_kernel


def twice_differentiable() -> AbstractContextManager[None]:
    """A context for a forward pass in which attention runs as matrix products, on CPU and GPU.

    torch's fused attention kernels have no second derivative. The choice of kernel is made in the forward pass, so the
    backward passes may be outside. An exception is attention inside ``torch.utils.checkpoint``, which chooses again
    when it recomputes: then put the whole step, with its backward, into ``sdpa_kernel(SDPBackend.MATH)``.
    """
    context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return context
