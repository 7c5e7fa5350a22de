"""Randomized Coded Inference: at test time, run a model's blocks on coded samples of a randomly permuted batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.core.axes import BatchAxis, axes_of, batch_along, map_tensors
from cs_gan.core.schedule import Schedule
from cs_gan.core.smoothing import CodedSmoothing
from cs_gan.core.tree import leaves_of
from cs_gan.errors import BatchError, CodeError


class RandomizedCodedInference(nn.Module):
    """A model under Randomized Coded Inference (arXiv 2510.00253): permute, encode, run, decode, undo the permutation.

    Every call draws new permutations from its own generator. The global random state is neither used nor changed.
    Outputs are differentiable, for adaptive attacks.

    ``reference`` is a bank of R inputs. A batch of fewer than 1 + R samples is filled up with the first inputs of the
    bank, and their outputs are dropped. Without a bank a batch of one is an error, because a spline needs two samples.

    Args:
        model: any module; called as before.
        ratio: N/K.
        blocks: which blocks are coded; ``""``, the default, is the whole model.
        votes: number of forward passes per call; their outputs are averaged.
        reference: (R, *F) inputs of the same kind as the model's, R >= 1 along the batch axis.
        batch_axis: as for :class:`CodedSmoothing`. An int is also the model's own batch axis; in a mapping the model's
            is the entry ``""``.
        seed: for the permutations and ``random`` nodes. You can reseed :attr:`generator`, which draws the
            permutations, at any time.
        options: of :class:`CodedSmoothing` (nodes, spline, decoder_kind, smoothing, batch_norm, integers,
            replace).

    Raises:
        CodeError: for fewer than one vote or an empty bank.
        BlockError: for unknown or already attached blocks.
        BatchError: in a call with one sample and no bank, or with a bank of another shape.
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
        if reference is not None and not batch_along(reference, axes.takes):
            raise CodeError("reference is empty: give at least one input, or None.")
        self.model = model
        self.votes = votes
        self._axes = axes
        if not isinstance(batch_axis, int) and "" not in (blocks := list(blocks)):
            batch_axis = {name: axis for name, axis in batch_axis.items() if name}
        self.coded = CodedSmoothing(model, blocks, ratio, seed=seed, batch_axis=batch_axis, **options)
        self.generator = torch.Generator().manual_seed(seed)
        self.register_buffer("reference", reference, persistent=False)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:  # (K, *F) -> the model's kind of output
        """The mean of ``votes`` outputs of the model, each with its own permutations."""
        filled = self._filled(x, bool(args or kwargs))
        totals: list[Tensor] = []
        for _ in range(self.votes):
            with self.coded.substitute(generator=self.generator):
                output = self.model(filled, *args, **kwargs)
            tensors = [leaf for leaf in leaves_of(output)[0] if isinstance(leaf, Tensor)]
            totals = [total + tensor for total, tensor in zip(totals, tensors, strict=True)] if totals else tensors
        batch, length = (tensor.shape[self._axes.takes] for tensor in (x, filled)) if filled is not x else (0, 0)
        remaining = iter(totals)

        def finish(_last: Tensor, axis: int) -> Tensor:
            total = next(remaining)
            has_fill = length != batch and batch_along(total, axis) == length
            return (total.narrow(axis, 0, batch) if has_fill else total) / self.votes

        return map_tensors(finish, output, self._axes.gives)

    @contextmanager
    def drawing_from(self, generator: torch.Generator) -> Iterator[None]:
        """A context in which permutations and ``random`` nodes come from this CPU generator.

        On exit the module's own draws continue where they were. So an attacker or an audit can neither see nor change
        them.
        """
        coded, own = self.coded, (self.generator, self.coded.seed, self.coded._drawn)
        self.generator = generator
        if "random" in coded._code_options:  # only nodes can be "random"
            coded.seed, coded._drawn = int(torch.randint(2**62, (), generator=generator, device="cpu")), 0
        try:
            yield
        finally:
            self.generator, coded.seed, coded._drawn = own

    def _filled(self, x: Tensor, other_arguments: bool) -> Tensor:
        """The batch, filled up to 1 + R samples from the bank."""
        if not isinstance(x, Tensor):  # a nesting: the coded blocks find the size of the batch
            if self.reference is not None:
                raise BatchError(f"a reference bank fills a tensor, and this call's first argument is {type(x)}.")
            return x
        axis = self._axes.takes
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
