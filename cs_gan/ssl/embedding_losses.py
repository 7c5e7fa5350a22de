"""Losses on the embeddings of two views of each image: one function per equation.

All are computed in float32 (float64 stays) under any autocast, and so is their backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cs_gan.precision import wide

FLOOR = 1e-6
"""Minimum length of a centred feature. A feature that is constant in the batch then has correlation 0."""


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.5) -> Tensor:  # (B, D), (B, D) -> ()
    """NT-Xent: identify, among all other views in the batch, the other view of the same image.

    The mean over all 2B views of -log(exp(s_ij / t) / sum over k != i of exp(s_ik / t)), where s is the cosine and j
    the other view of i's image.

    Source: Chen et al. 2020, A Simple Framework for Contrastive Learning of Visual Representations, equation 1.
    """
    views = F.normalize(wide(torch.cat([first, second])), dim=1)
    similarity = _product(views, views.T) / temperature  # (2B, 2B)
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    partner = torch.arange(len(views), device=views.device).roll(len(first))
    return F.cross_entropy(similarity.masked_fill(itself, -torch.inf), partner)


def cross_correlation(first: Tensor, second: Tensor) -> Tensor:  # (B, D), (B, D) -> (D, D)
    """Correlation over the batch of each feature of one view with each feature of the other.

    Source: Zbontar et al. 2021, Barlow Twins, equation 2, with features centred over the batch, as its text says.
    """
    a, b = (wide(view) - wide(view).mean(0) for view in (first, second))
    a, b = (F.normalize(view, dim=0, eps=FLOOR) for view in (a, b))
    return _product(a.T, b)


def barlow_twins(first: Tensor, second: Tensor, off_diagonal: float = 0.005) -> Tensor:  # (B, D), (B, D) -> ()
    """Pull the cross-correlation towards the identity.

    The sum over i of (1 - C_ii)^2, plus ``off_diagonal`` times the sum over i != j of C_ij^2.

    Source: Zbontar et al. 2021, Barlow Twins, equation 1.
    """
    correlation = cross_correlation(first, second)
    diagonal = correlation.diagonal()
    invariance = (1 - diagonal).square().sum()
    redundancy = correlation.square().sum() - diagonal.square().sum()
    return invariance + off_diagonal * redundancy


def _product(a: Tensor, b: Tensor) -> Tensor:  # (n, k), (k, m) -> (n, m)
    """``a @ b`` in the operands' dtype."""
    if not torch.is_autocast_enabled(a.device.type):
        return a @ b
    product: Tensor = _Uncast.apply(a, b)
    return product


class _Uncast(torch.autograd.Function):
    """``a @ b`` that autocast doesn't run in bfloat16, and neither its derivatives if they are taken inside it."""

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        with torch.autocast(a.device.type, enabled=False):
            return a @ b

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return _product(grads[0], b.T), _product(a.T, grads[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        a, b = ctx.saved_tensors
        return _product(tangents[0], b) + _product(a, tangents[1])

    generate_vmap_rule = True
