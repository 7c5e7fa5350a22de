"""The task loss and the penalties to compare coded-smoothing with: one function per equation."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cs_gan.core.block_state import Parameters, unchanged
from cs_gan.errors import BatchError
from cs_gan.precision import wide
from cs_gan.second_derivative import require_second_derivative, twice_differentiable

_parameters: WeakKeyDictionary[nn.Module, Parameters] = WeakKeyDictionary()
"""What is known of the models that :func:`jacobian_penalty` has called."""


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:  # (K, C), (K,|K, C) -> ()
    """Cross-entropy with hard or mixed labels, in float32 or better; smoothing is torch's own.

    Label smoothing comes after the mix: (1 - s) mixed + s / C. Source: Szegedy et al. 2016, section 7.
    """
    logits = wide(logits)
    if targets.is_floating_point():
        targets = targets.to(logits.dtype)
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)


def logit_norm_penalty(logits: Tensor) -> Tensor:  # (K, C) -> ()
    """The mean square of the logits: the control for the effect of the coded penalty on a network's affine part."""
    return wide(logits).square().mean()


def jacobian_penalty(model: nn.Module, images: Tensor, source: torch.Generator | Tensor) -> Tensor:  # (K, *F) -> ()
    """1/2 E ||J||_F^2 of the logits' Jacobian at each image, estimated by one random projection per image.

    With v uniform on the unit sphere of R^C, C ||v^T J||^2 has the mean ||J||_F^2. The factor 1/2 is the
    source's, so its weights apply here.

    This is a second forward pass, in float32 (float64 stays) under any autocast. Running statistics, other buffers
    and frozen parameters do not change, and attention uses the kernel that has second derivatives. In training mode
    batch norm makes the samples depend on each other. As in the authors' code, the result is then the derivative of
    the sum over the batch of v_k^T logits_k.

    Args:
        model: (K, *F) -> (K, C) logits; the bare module, not its DistributedDataParallel wrapper.
        images: (K, *F) of a floating-point type; no gradient flows into them.
        source: a CPU generator for the projections, or (K, C) normal numbers.

    Raises:
        BatchError: for integer images, or logits of another shape.
        BlockError: if the model changes a trained parameter, or has parts that torch.compile compiled ahead of time.

    Source: Hoffman, Roberts and Yaida 2019 (arXiv 1908.02729), equations 3 to 7, n_proj = 1.
    """
    if not images.is_floating_point():
        raise BatchError(
            f"jacobian_penalty got images of {images.dtype}, which have no derivative. Give floating-point ones, "
            "or turn the penalty off (jacobian=0)."
        )
    with (
        torch.autocast(images.device.type, enabled=False),
        twice_differentiable(),
        unchanged("the model", "jacobian_penalty", model, _parameters.setdefault(model, Parameters())),
    ):
        x = wide(images.detach()).requires_grad_()
        logits = model(x)
        if logits.dim() != 2 or len(logits) != len(x):
            raise BatchError(f"the model gave {tuple(logits.shape)} for {len(x)} images: its logits must be (K, C).")
        require_second_derivative("jacobian_penalty", logits, x)
        directions = source if isinstance(source, Tensor) else torch.randn(logits.shape, generator=source, device="cpu")
        projections = F.normalize(directions, dim=1).to(logits)
        with torch.autograd.set_multithreading_enabled(False):  # for the same reason as in gradient_penalty
            (rows,) = torch.autograd.grad((projections * logits).sum(), x, create_graph=True)  # v^T J, (K, *F)
        penalty: Tensor = logits.shape[1] / (2 * len(x)) * rows.square().sum()
        return penalty
