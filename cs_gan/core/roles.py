"""What is data among the tensors that a block is called with. Only this file decides it.

Every tensor has one role:

- ``encode``: data of the batch. Coded samples are mixes of it.
- ``nearest``: one entry for each sample that can't be mixed: integers, booleans, masks. It is refused, or with
  ``discrete="nearest"`` a coded sample takes the entry of the nearest data sample.
- ``plain``: no batch axis, such as a table of positions or a causal mask. It is passed on as it is.

**The rule.** The first of these that says something decides:

1. the user's ``arguments``;
2. what is known of the module or of the argument's name (cs_gan/core/known.py);
3. the length: a tensor that is not K long along the batch axis is ``plain``;
4. the type: integers and booleans are ``nearest``;
5. the values: an additive mask (0 and -inf) is ``nearest``, whatever its name;
6. else it is ``encode``.

A tensor can be K long by accident, such as a table of positions (L, d) if L = K. If it might be a part of one sample,
an earlier call with another K decides, and without one it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from cs_gan.core.known import KINDS, NEAREST, PLAIN, Axes, Role, parameters_of, role_by_name
from cs_gan.core.masks import additive_mask, readable
from cs_gan.core.nestings import batch_along, leaves_of
from cs_gan.errors import BatchError, BlockError

Arguments = Mapping[int | str, str] | Mapping[str, Mapping[int | str, str]]
DISCRETE = ("refuse", "nearest")


@dataclass(frozen=True)
class ArgumentTensor:
    """A tensor that a block is called with: its argument's name or position, and its number inside the argument."""

    argument: int | str
    number: int
    tensor: Tensor

    def __str__(self) -> str:
        return f"{self.argument!r} {tuple(self.tensor.shape)}"


@dataclass
class Seen:
    """What earlier calls have shown about a block.

    Attributes:
        per_sample: for each tensor, whether it had a batch axis when its length told.
        masks: the tensors whose values were those of an additive mask.
        called: whether there was a call.
        left_out: numbers of the output tensors that are no data; None before the first output.
    """

    per_sample: dict[tuple[int | str, int], bool] = field(default_factory=dict)
    masks: set[tuple[int | str, int]] = field(default_factory=set)
    called: bool = False
    left_out: frozenset[int] | None = None


def roles_of(
    block: str,
    module: nn.Module,
    inputs: Any,
    axes: Axes,
    user_roles: Mapping[int | str, Role],
    seen: Seen,
    least: int = 2,
) -> tuple[int, list[Role]]:
    """The batch size K, and the role of every tensor in the order of ``leaves_of(inputs)``, each with its batch axis.

    Args:
        inputs: arguments and keyword arguments of the call.
        user_roles: the roles that the user gave.
        least: the smallest batch.

    Raises:
        BatchError: if there is no batch of at least ``least`` samples, for a tensor that can't be coded (nested,
            sparse), one that may or may not have a batch axis, and one that is said to be data but isn't K long.
    """
    if any(isinstance(value, PackedSequence) for value in (*inputs[0], *inputs[1].values())):
        raise BatchError(
            f"block {block!r} got a PackedSequence, whose samples have different lengths and can't be mixed: give the "
            "padded batch, or choose a block after it."
        )
    tensors = list(_tensors(module, inputs))
    for each in tensors:
        _check_form(block, each)
    known = [_known(module, each, axes, user_roles) for each in tensors]
    first = _first(block, module, tensors, known, axes)
    if (K := first.tensor.shape[axes.takes]) < least:
        raise BatchError(
            f"block {block!r} got a batch of {K}: a spline needs at least 2 samples. Use a larger batch, drop the last "
            "short one, give RandomizedCodedInference a bank of `reference` inputs, or name the axis of the batch with "
            f'`batch_axis`. If the argument has no batch, say arguments={{{first.argument!r}: "plain"}}.'
        )
    roles = [_role(block, each, role, first, axes, seen) for each, role in zip(tensors, known, strict=True)]
    seen.called = True
    return K, roles


def roles_by_user(blocks: Mapping[str, nn.Module], arguments: Arguments) -> dict[str, dict[int | str, Role]]:
    """The user's ``arguments`` for each block.

    Raises:
        BlockError: for an unknown role, block or argument.
    """
    if not isinstance(arguments, Mapping):
        raise BlockError(f"arguments={arguments!r}: give a mapping from names or positions, as {{'table': 'plain'}}.")
    apart = {key: value for key, value in arguments.items() if isinstance(value, Mapping)}
    shared = {key: value for key, value in arguments.items() if key not in apart}
    if unknown := apart.keys() - blocks.keys():
        raise BlockError(f"arguments names {sorted(unknown)}, not coded: the coded blocks are {list(blocks)}.")
    fitting: set[int | str] = set()
    words: dict[str, dict[int | str, Any]] = {name: {**shared, **apart.get(name, {})} for name in blocks}
    for name, block in blocks.items():
        parameters = parameters_of(block)
        open_ended = not parameters or any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values())
        for argument, kind in words[name].items():
            if kind not in KINDS:
                raise BlockError(f"arguments says {argument!r} is {kind!r}: choose one of {', '.join(KINDS)}.")
            fits = argument in parameters or (isinstance(argument, int) and 0 <= argument < len(parameters))
            if fits or open_ended:
                fitting.add(argument)
            elif argument in apart.get(name, {}) or len(blocks) == 1:
                raise BlockError(f"arguments names {argument!r}, but block {name!r} takes {list(parameters)}.")
    if unknown := shared.keys() - fitting:
        raise BlockError(f"arguments names {sorted(map(str, unknown))}, which no coded block takes.")
    return {
        name: {_by_name(argument, blocks[name]): Role(kind, by_user=True) for argument, kind in given.items()}
        for name, given in words.items()
    }


def outputs_left_out(outputs: Sequence[Tensor], seen: Seen) -> frozenset[int]:
    """The numbers of a block's output tensors that can't be decoded: integers, and masked scores of attention.

    Whether an output holds masked scores (-inf or the lowest numbers) is decided in the first call. Later ones could
    come from a run that diverges.
    """
    if seen.left_out is None and all(readable(each, True) for each in outputs):
        seen.left_out = frozenset(number for number, each in enumerate(outputs) if additive_mask(each))
    return (seen.left_out or frozenset()) | {number for number, each in enumerate(outputs) if not mixable(each)}


def mixable(tensor: Tensor) -> bool:
    """Whether numbers of this type can be mixed: floating-point and complex ones."""
    return tensor.is_floating_point() or tensor.is_complex()


def described(module: nn.Module, inputs: Any, roles: list[Role]) -> str:
    """The tensors of a call by role, for messages."""
    pairs = list(zip(_tensors(module, inputs), roles, strict=True))
    parts = {kind: [str(tensor) for tensor, role in pairs if role.kind == kind] for kind in KINDS}
    words = {"encode": "encoded", "nearest": "of the nearest sample", "plain": "passed on"}
    return "; ".join(f"{words[kind]}: {', '.join(found)}" for kind, found in parts.items() if found)


# -- the parts of the rule -------------------------------------------------------------------------


def _tensors(module: nn.Module, inputs: Any) -> Iterator[ArgumentTensor]:
    """Every tensor with its argument, in the order of ``leaves_of(inputs)``."""
    args, kwargs = inputs
    if not kwargs and len(args) == 1 and isinstance(args[0], Tensor):  # nearly always; names are not needed
        yield ArgumentTensor(0, 0, args[0])
        return
    for key, value in [*enumerate(args), *kwargs.items()]:
        tensors = [leaf for leaf in leaves_of(value)[0] if isinstance(leaf, Tensor)]
        name = _by_name(key, module) if tensors else key
        yield from (ArgumentTensor(name, number, tensor) for number, tensor in enumerate(tensors))


def _by_name(argument: int | str, module: nn.Module) -> int | str:
    """The name of the argument at a position, or the position if there is no name."""
    if isinstance(argument, str):
        return argument
    named = [name for name, p in parameters_of(module).items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    return named[argument] if argument < len(named) else argument


def _check_form(block: str, given: ArgumentTensor) -> None:
    tensor = given.tensor
    if tensor.is_nested:
        what, remedy = (
            "a nested tensor, whose samples have different lengths",
            ("give the padded one. nn.TransformerEncoder makes nested ones in eval mode: enable_nested_tensor=False"),
        )
    elif tensor.layout is not torch.strided:
        what, remedy = f"a tensor of layout {tensor.layout}", "give the dense one (to_dense())"
    elif tensor.device.type == "meta":
        what, remedy = "a tensor on the meta device, which has no values", "run the model on a real device"
    elif tensor.is_quantized or (tensor.is_floating_point() and torch.finfo(tensor.dtype).bits < 16):
        what, remedy = f"{tensor.dtype}, whose numbers can't be mixed", "convert to bfloat16 or wider before the block"
    else:
        return
    raise BatchError(f"block {block!r} got {what}, as argument {given.argument!r}: {remedy}, or choose another block.")


def _known(module: nn.Module, given: ArgumentTensor, axes: Axes, user_roles: Mapping[int | str, Role]) -> Role | None:
    """Steps 1 and 2."""
    name = given.argument
    if (axes.arguments or user_roles) and not isinstance(name, str):  # a single argument has no name yet
        name = _by_name(name, module)
    return user_roles.get(name) or axes.arguments.get(str(name)) or role_by_name(name, given.tensor)


def _first(
    block: str, module: nn.Module, candidates: list[ArgumentTensor], known: list[Role | None], axes: Axes
) -> ArgumentTensor:
    """The tensor that has the size of the batch: the first data in the order of the block's parameters."""
    axis = axes.takes
    if len(candidates) > 1:
        order = {name: number for number, name in enumerate(parameters_of(module))}
        pairs = sorted(zip(candidates, known, strict=True), key=lambda pair: order.get(str(pair[0].argument), -1))
        data = [each for each, role in pairs if role is None or role.kind == "encode"]
        candidates = [each for each in data if mixable(each.tensor)] or data or [each for each, _ in pairs]
    tensors = [each.tensor for each in candidates if each.tensor.dim() > 0]
    first = next((each for each in candidates if batch_along(each.tensor, axis) is not None), None)
    if first is None:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        what = f"with an axis {axis} (batch_axis={axis}; shapes: {shapes})" if shapes else "that has a batch axis"
        raise BatchError(f"block {block!r} was called without a tensor {what}: nothing to code.")
    if axes.dims is not None and tensors[0].dim() != axes.dims:
        raise BatchError(
            f"block {block!r} got shape {tuple(tensors[0].shape)}, a single sequence: give it {axes.dims} axes, of "
            f"which axis {axis} is the batch."
        )
    return first


def _role(block: str, given: ArgumentTensor, known: Role | None, first: ArgumentTensor, axes: Axes, seen: Seen) -> Role:
    """Steps 3 to 6, with the batch axis filled in."""
    tensor, K = given.tensor, first.tensor.shape[axes.takes]
    role = known or Role("encode" if mixable(tensor) else "nearest", sure=given is first)
    address = given.argument, given.number
    if role.kind == "encode" and not mixable(tensor):
        if role.by_user:
            raise BatchError(
                f"block {block!r}: arguments says that {given} is data, but {tensor.dtype} can't be mixed."
            )
        role = replace(role, kind="nearest")
    axis = _axis(tensor, role, axes, K)
    if axis is None:
        if role.by_user and role.kind == "encode":
            raise BatchError(f"block {block!r}: arguments says that {given} is data, but it is not K = {K} long.")
        if batch_along(tensor, axes.takes) not in (None, 1):  # a length of 1 says nothing
            if known is None and seen.per_sample.get(address):
                raise _doubtful(block, given, f"an earlier batch was as long as it, and this one has K = {K}")
            seen.per_sample[address] = False
        return PLAIN
    if not role.sure:
        if seen.per_sample.get(address) is False:
            return PLAIN
        if _may_be_part_of_a_sample(tensor, first.tensor, axes.takes) and address not in seen.per_sample:
            raise _doubtful(block, given, f"K is also a length in {first}")
        if not _may_be_part_of_a_sample(tensor, first.tensor, axes.takes):
            seen.per_sample[address] = True
    if known is None and given is not first:
        if readable(tensor, not seen.called) and additive_mask(tensor):
            seen.masks.add(address)
        if address in seen.masks:
            role = replace(NEAREST, sure=False)
            axis = _axis(tensor, role, axes, K)
    return replace(role, axis=axis, argument=given.argument)


def _axis(tensor: Tensor, role: Role, axes: Axes, K: int) -> int | None:
    """The tensor's batch axis, or None if it has none."""
    if role.kind == "plain" or (role.dims is not None and tensor.dim() != role.dims):
        return None
    candidates = (axes.takes,) if role.kind == "encode" else axes.unmixed
    return next(
        (
            axis
            for axis in (candidates if role.axis is None else (role.axis,))
            if batch_along(tensor, axis) == K * role.rows
        ),
        None,
    )


def _may_be_part_of_a_sample(tensor: Tensor, first: Tensor, axis: int) -> bool:
    """Whether the tensor, without a batch axis, would fit one sample of the first: as a table, mask or scale."""
    K, sample = first.shape[axis], list(first.shape)
    del sample[axis]
    if K not in sample or not 0 < tensor.dim() <= len(sample):
        return False
    if tensor.dim() == 1 and (len(sample) > 2 or (len(sample) == 1 and not mixable(tensor))):
        return False  # labels or times; nobody gives a column of an image
    if len(sample) == 2 and tensor.shape[0] == sample[0]:  # (L, d): positions, a table (L, d) or a mask (L, L)
        return tensor.dim() == 1 or tensor.shape[1] in (1, *sample)
    return list(tensor.shape) == sample[-tensor.dim() :]


def _doubtful(block: str, given: ArgumentTensor, why: str) -> BatchError:
    """The error for a tensor that may or may not have a batch axis."""
    return BatchError(
        f"block {block!r}: argument {given} may be one entry for each sample, or a part of one sample such as a table "
        f'of positions or a mask: {why}. Say which with arguments={{{given.argument!r}: "encode"}} (mix it with the '
        'batch), "nearest" (entries that can\'t be mixed) or "plain" (no batch).'
    )
