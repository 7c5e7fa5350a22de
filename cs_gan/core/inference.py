"""Randomized Coded Inference: a model for serving whose blocks answer through a randomly permuted code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.core.axes import BatchAxis, axes_of, batch_along
from cs_gan.core.schedule import Schedule
from cs_gan.core.smoothing import CodedSmoothing
from cs_gan.core.tree import leaves_of, map_leaves
from cs_gan.errors import BatchError, CodeError


class RandomizedCodedInference(nn.Module):
    """A model under Randomized Coded Inference (arXiv 2510.00253): permute, encode, run, decode, undo.

    Every call draws fresh permutations from a generator of its own, so the global random state neither
    matters nor moves. Outputs are differentiable, for adaptive attacks.

    A batch of one (or any batch smaller than the bank and one) is filled up from ``reference``: sample
    by sample from its beginning, and the fill is dropped from the output. Without a bank a batch of one
    is an error, since a spline needs two samples.

    Args:
        model: any module; called as before.
        ratio: N/K.
        blocks: which blocks are coded; ``""``, the default, is the whole model.
        votes: forwards per call, whose outputs are averaged.
        reference: (R, *F) bank of inputs of the kind the model takes, R of at least 1, along the batch axis.
        batch_axis: as for :class:`CodedSmoothing`; as an int also the model's own, in a mapping that is ``""``.
        seed: of the permutations and of ``random`` nodes; :attr:`generator`, which
            draws the permutations, may be reseeded at any time.
        options: of :class:`CodedSmoothing` (nodes, spline, decoder_kind, smoothing, batch_norm, integers,
            replace).

    Raises:
        CodeError: for fewer than one vote or an empty bank.
        BlockError: for unknown or already attached blocks.
        BatchError: on a call with one sample and no bank, or with a bank of another shape.
    """

    reference: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        ratio: Schedule = 1.5,
        *,
        blocks: Iterable[str | nn.Module] = ("",),
        votes: int = 1,
        reference: Tensor | None = None,
        batch_axis: BatchAxis = 0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        if votes < 1:
            raise CodeError(f"votes={votes}: at least one forward is needed.")
        axes = axes_of(model, batch_axis if isinstance(batch_axis, int) else batch_axis.get("", 0))
        if reference is not None and not batch_along(reference, axes.takes[0]):
            raise CodeError("reference is empty: give at least one input, or None.")
        self.model = model
        self.votes = votes
        self._axes = axes
        if not isinstance(batch_axis, int) and "" not in (blocks := list(blocks)):
            batch_axis = {name: axis for name, axis in batch_axis.items() if name}
        self.coded = CodedSmoothing(model, blocks, ratio, seed=seed, batch_axis=batch_axis, **options)
        self.generator = torch.Generator().manual_seed(seed)
        self.register_buffer("reference", reference, persistent=False)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:  # (K, *F) -> what the model gives
        """The mean over ``votes`` of the model's outputs, each under its own permutations."""
        filled = self._filled(x, bool(args or kwargs))
        totals: list[Any] = []
        for _ in range(self.votes):
            with self.coded.substitute(generator=self.generator):
                output = self.model(filled, *args, **kwargs)
            leaves = leaves_of(output)[0]
            totals = [_added(*pair) for pair in zip(totals, leaves, strict=True)] if totals else leaves
        batch, length = (tensor.shape[self._axes.takes[0]] for tensor in (x, filled)) if filled is not x else (0, 0)
        remaining, tensors = iter(totals), 0

        def finish(_leaf: Any) -> Any:
            nonlocal tensors
            leaf = next(remaining)
            if not isinstance(leaf, Tensor):
                return leaf
            axis = self._axes.gives[tensors > 0]
            tensors += 1
            has_fill = length != batch and batch_along(leaf, axis) == length
            return (leaf.narrow(axis, 0, batch) if has_fill else leaf) / self.votes

        return map_leaves(finish, output)

    @contextmanager
    def drawing_from(self, generator: torch.Generator) -> Iterator[None]:
        """Inside, permutations and ``random`` nodes come from this CPU generator.

        After it the module's own draws go on as if nothing had happened: an attacker or an audit neither
        sees nor moves them.
        """
        coded, own = self.coded, (self.generator, self.coded.seed, self.coded._drawn)
        self.generator = generator
        if "random" in coded._code_options:  # among nodes, spline and decoder only nodes have this choice
            coded.seed, coded._drawn = int(torch.randint(2**62, (), generator=generator, device="cpu")), 0
        try:
            yield
        finally:
            self.generator, coded.seed, coded._drawn = own

    def _filled(self, x: Tensor, other_arguments: bool) -> Tensor:
        """The batch with as much of the bank as it lacks to 1 + R samples."""
        if not isinstance(x, Tensor):  # a batch in a nesting: its size is for the coded blocks to find
            if self.reference is not None:
                raise BatchError(f"a reference bank fills a tensor, and this call's first argument is {type(x)}.")
            return x
        axis = self._axes.takes[0]
        batch = batch_along(x, axis)
        if batch is None:
            raise BatchError(f"an input of shape {tuple(x.shape)} has no batch axis {axis}: see batch_axis.")
        if self.reference is None:
            if batch < 2:
                raise BatchError(
                    f"a batch of {batch} can't be coded: collect at least 2 inputs, or construct "
                    "RandomizedCodedInference(model, reference=bank) with inputs that fill the batch."
                )
            return x
        lacking = 1 + self.reference.shape[axis] - batch
        if lacking <= 0:
            return x
        if other_arguments:
            raise BatchError("a reference bank fills the first argument only: this call has more of them.")
        bank = self.reference.narrow(axis, 0, lacking).to(x.device, x.dtype)
        if bank.movedim(axis, 0).shape[1:] != x.movedim(axis, 0).shape[1:]:
            raise BatchError(
                f"the reference bank holds inputs of shape {tuple(bank.movedim(axis, 0).shape[1:])}, and the batch "
                f"{tuple(x.movedim(axis, 0).shape[1:])}: give a bank of the same kind of input."
            )
        return torch.cat([x, bank], axis)


def _added(total: Any, leaf: Any) -> Any:
    return total + leaf if isinstance(total, Tensor) else total
