"""Randomized Coded Inference: at test time, run a model's blocks on coded samples of a randomly permuted batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cs_gan.core.conventions import Axes
from cs_gan.core.nestings import BatchAxis, axes_of, batch_along, leaves_of, map_tensors
from cs_gan.core.schedule import Schedule
from cs_gan.core.smoothing import CodedSmoothing
from cs_gan.errors import BatchError, CodeError
from cs_gan.precision import wide


class RandomizedCodedInference(nn.Module):
    """A model under Randomized Coded Inference (arXiv 2510.00253): permute, encode, run, decode, undo the permutation.

    Every call draws new permutations from its own generator. The global random state is neither used nor changed.
    Outputs are differentiable, for adaptive attacks.

    ``reference`` is a bank of R inputs. A batch of fewer than 1 + R samples is filled up with the first inputs of the
    bank, and their outputs are dropped. Without a bank a batch of one is an error, because a spline needs two samples.

    :attr:`training` is always that of the model, so the wrapper of a model in eval mode is in eval mode too.

    Args:
        model: any module; called as before.
        ratio: N/K.
        blocks: which blocks are coded; ``""``, the default, is the whole model.
        votes: number of forward passes per call. Real and complex outputs are averaged, in float32 or better, and keep
            their dtype. Integers and booleans get the value of most votes, and in a tie that of the earliest vote among
            them. Numbers, strings and arrays that are no tensors must be the same in all votes.
        reference: (R, *F) inputs of the same kind as the model's, R >= 1 along the batch axis.
        batch_axis: as for :class:`CodedSmoothing`. An int is also the model's own batch axis; in a mapping the model's
            is the entry ``""``.
        seed: for the permutations and ``random`` nodes. You can reseed :attr:`generator`, which draws the
            permutations, at any time.
        options: of :class:`CodedSmoothing` (nodes, spline, decoder_kind, smoothing, batch_norm, arguments, discrete,
            multiple, replace).

    Raises:
        CodeError: for fewer than one vote or an empty bank.
        BlockError: for unknown or already attached blocks.
        BatchError: in a call with one sample and no bank, with a bank of another shape, or with outputs that can't be
            joined over the votes.
    """

    model: nn.Module
    votes: int
    coded: CodedSmoothing
    generator: torch.Generator
    reference: Tensor | None
    _axes: Axes

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
        if not isinstance(votes, Integral) or votes < 1:
            raise CodeError(f"votes={votes}: give a whole number of forwards, at least one.")
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

    @property
    def training(self) -> bool:
        """Whether the model is in training mode. torchattacks and others read it here to restore it later."""
        model = self._modules.get("model")
        return True if model is None else model.training

    @training.setter
    def training(self, mode: bool) -> None:
        if "model" in self.__dict__.get("_modules", ()):  # nn.Module sets it before there is a model
            self.model.training = mode

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # (K, *F) -> the model's kind of output
        """``votes`` outputs of the model, each with its own permutations, joined into one.

        The first argument with tensors, by position or by name, has the batch axis.
        """
        arguments = [*args, *kwargs.values()]
        x: Any = next(filter(_has_tensors, arguments), None)
        if self.reference is not None and not isinstance(x, Tensor):
            kinds = ", ".join(type(argument).__name__ for argument in arguments) or "nothing"
            raise BatchError(f"a reference bank fills a tensor, and this call has {kinds}.")
        filled = self._filled(x, sum(map(_has_tensors, arguments)) > 1)
        if filled is not x:  # which is the only argument with tensors
            args = tuple(filled if argument is x else argument for argument in args)
            kwargs = {name: filled if argument is x else argument for name, argument in kwargs.items()}
        joined = _Votes()
        for _ in range(self.votes):
            with self.coded.substitute(generator=self.generator):
                output = self.model(*args, **kwargs)
            joined.add(output)
        batch, length = (tensor.shape[self._axes.takes] for tensor in (x, filled)) if filled is not x else (0, 0)
        remaining = iter(joined.results())

        def finish(_last: Tensor, axis: int) -> Tensor:
            result = next(remaining)
            has_fill = length != batch and batch_along(result, axis) == length
            return result.narrow(axis, 0, batch) if has_fill else result

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

    def _filled(self, x: Any, other_arguments: bool) -> Any:
        """The batch, filled up to 1 + R samples from the bank."""
        if not isinstance(x, Tensor):  # a nesting: the coded blocks find the size of the batch
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
            raise BatchError("a reference bank fills the first argument only: this call has more with tensors.")
        bank = self.reference.narrow(axis, 0, lacking).to(x.device, x.dtype)
        if bank.movedim(axis, 0).shape[1:] != x.movedim(axis, 0).shape[1:]:
            raise BatchError(
                f"the reference bank holds inputs of shape {tuple(bank.movedim(axis, 0).shape[1:])}, and the batch "
                f"{tuple(x.movedim(axis, 0).shape[1:])}: give a bank of the same kind of input."
            )
        return torch.cat([x, bank], axis)


def _has_tensors(argument: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in leaves_of(argument)[0])


class _Votes:
    """The outputs of all votes, joined tensor by tensor."""

    def __init__(self) -> None:
        self._count = 0
        self._first: tuple[list[Any], Any] = ([], None)
        self._sums: list[Tensor | list[Tensor]] = []  # of real and complex tensors; all votes of integers

    def add(self, output: Any) -> None:
        """Count one vote.

        Raises:
            BatchError: if it has another structure, shape or dtype than the first, or another number or string.
        """
        leaves, structure = leaves_of(output)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self._count += 1
        if self._count == 1:
            self._first = leaves, structure
            self._sums = [wide(tensor) if _averages(tensor) else [tensor] for tensor in tensors]
            return
        if structure != self._first[1]:
            raise BatchError("the votes gave outputs of different structure: use votes=1 for this model.")
        for first, leaf in zip(self._first[0], leaves, strict=True):
            _check_alike(first, leaf)
        for place, tensor in enumerate(tensors):
            total = self._sums[place]
            if isinstance(total, list):
                total.append(tensor)
            else:
                self._sums[place] = total + tensor

    def results(self) -> list[Tensor]:
        """One tensor for each in the model's output, of the same shape and dtype."""
        tensors = [leaf for leaf in self._first[0] if isinstance(leaf, Tensor)]
        return [
            _majority(total) if isinstance(total, list) else (total / self._count).to(tensor.dtype)
            for total, tensor in zip(self._sums, tensors, strict=True)
        ]


def _averages(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _majority(votes: list[Tensor]) -> Tensor:  # (*F) each -> (*F)
    """The value of most votes; in a tie that of the earliest vote among them."""
    if len(votes) == 1:
        return votes[0]
    stacked = torch.stack(votes)
    counts = torch.stack([(stacked == vote).sum(0) for vote in votes])
    return stacked.gather(0, counts.argmax(0, keepdim=True))[0]  # argmax gives the first of equal counts


def _check_alike(first: Any, other: Any) -> None:
    """Raise BatchError for leaves of two votes that can't be joined. Objects of unknown kind are not compared."""
    if isinstance(first, Tensor) and isinstance(other, Tensor):
        if (first.shape, first.dtype) != (other.shape, other.dtype):
            raise BatchError(
                f"the votes gave tensors of {first.dtype} {tuple(first.shape)} and {other.dtype} {tuple(other.shape)}: "
                "the shape of this output depends on the permutation. Use votes=1 for this model."
            )
    elif not _same(first, other):
        raise BatchError(
            f"the votes gave {first!r} and {other!r} in the same place, which can't be averaged. Let the model give "
            "tensors, or use votes=1."
        )


def _same(first: Any, other: Any) -> bool:
    if type(first) is not type(other):
        return False
    if isinstance(other, float | complex | np.ndarray | np.generic):  # two NaN are the same too
        return bool(np.array_equal(first, other, equal_nan=np.asarray(other).dtype.kind in "fc"))
    return not isinstance(other, int | str | bytes) or bool(first == other)
