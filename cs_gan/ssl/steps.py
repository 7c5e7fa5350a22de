"""One update of an encoder with its projector, as a function of everything it uses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.core import CodedSmoothing
from cs_gan.core.share import coded_objective
from cs_gan.core.update import Backward, MicroBatch, StepLosses, Update
from cs_gan.errors import BatchError, ConfigError


def ssl_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    views: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    coded: CodedSmoothing | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    backward: Backward = torch.Tensor.backward,
    micro_batch: MicroBatch = (1, 1),
    measure_share: bool = False,
) -> StepLosses:
    """One update by one backward of loss + coded penalty.

    Both views go through the network in one batch, so batch norm and coding see 2B samples. Negatives come only from
    this process.

    Args:
        network: plain or wrapped in DistributedDataParallel; (2B, *F) -> (2B, D) embeddings.
        views: (2B, *F), the first views of all images, then the second views in the same order.
        loss: such as :func:`~cs_gan.ssl.nt_xent`; (B, D), (B, D) -> (). It is called in float32.
        coded: attached to blocks of the network, or None; its ``weight`` applies.
        autocast: a context for the forward pass.
        backward: differentiates the loss (``accelerator.backward``).
        micro_batch: (i, n) for the i-th of n micro-batches of one update. Negatives and coded samples come only from
            the same micro-batch. Inside ``accelerator.accumulate`` leave it out
            (:class:`~cs_gan.core.update.Update`).
        measure_share: also measure the coded penalty's share of the gradient (:meth:`CodedSmoothing.share`).

    Returns:
        Detached scalars: loss (without the coded penalty, so plain and coded runs can be compared), coded (the
        unweighted penalty) if it was observed, and coded_share if it was measured.

    Raises:
        BatchError: for an odd number of views, or fewer than two images.
        ConfigError: if the network returns anything but embeddings, or for an unusable micro_batch.
    """
    if len(views) % 2 or len(views) < 4:
        raise BatchError(
            f"ssl_step(views={tuple(views.shape)}): give two views of at least two images, torch.cat([first, second])."
        )
    update = Update("ssl_step", optimizer, micro_batch)
    with autocast(), coded.observe() if coded else nullcontext():
        embeddings = network(views)
    if not isinstance(embeddings, Tensor) or embeddings.shape[:1] != views.shape[:1]:
        description = (
            f"{tuple(embeddings.shape)}" if isinstance(embeddings, Tensor) else f"a {type(embeddings).__name__}"
        )
        raise ConfigError(
            f"the network gave {description} for {len(views)} views: ssl_step needs embeddings ({len(views)}, D). "
            "Give a module that returns only the embeddings."
        )
    first, second = embeddings.float().chunk(2)
    losses = {"loss": loss(first, second)}
    objective, measured = coded_objective(losses["loss"], coded, network, measure_share)
    update.backward(backward, objective)
    update.finish()
    return {name: value.detach() for name, value in (losses | measured).items()}
