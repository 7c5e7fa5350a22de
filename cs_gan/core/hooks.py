"""The hooks that run inside a context: one class per context."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from cs_gan.core.arguments import Argument, objects_among, refuse_filled
from cs_gan.core.batch import decode_output, encode_inputs
from cs_gan.core.block_state import Parameters
from cs_gan.core.code import SplineCode
from cs_gan.core.coded_pass import Masks, Weights, coded_pass, recorded_dropout, recorded_weights
from cs_gan.core.context import coded_now, entered, is_inside, refuse_collecting, uncollected
from cs_gan.core.conventions import Axes, Role
from cs_gan.core.discrepancy import Discrepancy
from cs_gan.core.nestings import leaves_of
from cs_gan.core.penalty import output_penalty
from cs_gan.core.recompute import recomputing, refuse_checkpoint, without_checkpoint
from cs_gan.core.roles import CallHistory, described, roles_of
from cs_gan.errors import BlockError, CsGanError

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Call:
    """One call of a coded block, from its forward pre-hook to its forward hook."""

    name: str
    block: nn.Module
    axes: Axes
    code: SplineCode
    roles: list[Role]
    encoded: Inputs = ((), {})
    encoded_before: tuple[list[Any], Any] = ([], None)  # leaves and structure of `encoded` before the call
    permutation: Tensor | None = None
    weights: Weights | None = None
    masks: Masks | None = None
    objects: list[Argument] = field(default_factory=list)
    handled: BaseException | None = None  # the exception that the caller was handling before the call
    cleanup: ExitStack = field(default_factory=ExitStack)


@dataclass(frozen=True)
class Coding:
    """How blocks are coded, for both contexts."""

    code_for: Callable[[int], SplineCode]
    axes: dict[str, Axes]
    user_roles: dict[str, dict[int | str, Role]]
    discrete: str
    batch_norm: str
    parameters: dict[str, Parameters]
    histories: dict[str, CallHistory]

    def second_pass(
        self, call: Call, weights: Weights | None = None, masks: Masks | None = None, nearest: Tensor | None = None
    ) -> AbstractContextManager[None]:
        """The context for the coded pass of a call."""
        parameters = self.parameters[call.name]
        return coded_pass(call.name, call.block, self.batch_norm, parameters, weights, masks, nearest)

    def call_of(self, name: str, block: nn.Module, inputs: Inputs) -> Call:
        """The call of a block, with the code for its batch and the roles of its inputs."""
        axes = self.axes[name]
        K, roles = roles_of(name, block, inputs, axes, self.user_roles[name], self.histories[name])
        call = Call(name, block, axes, self.code_for(K), roles, handled=sys.exc_info()[1])
        call.objects = objects_among(name, inputs, axes, K)
        return call

    def encode(self, call: Call, inputs: Inputs) -> Inputs:
        """Encode the inputs of a call."""
        encoded: Inputs = encode_inputs(call.name, inputs, call.roles, call.code, call.permutation, self.discrete)
        return encoded


def untraced(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, excluded from torch.compile, which would trace it down into numpy. That takes minutes."""
    dynamo = sys.modules.get("torch._dynamo")  # its import takes seconds; as long as nobody imported it, none compiles
    return hook if dynamo is None else dynamo.disable(hook)


class Hook:
    """A hook that is excluded from torch.compile and can't be copied.

    A model is copied with its hooks. On the copy they would stay for ever.
    """

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = untraced(run)

    def __call__(self, *args: Any) -> Any:  # noqa: D102
        return self._run(*args)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise BlockError(
            "a model can't be copied or pickled inside observe(), substitute() or diagnose(): its coded blocks have "
            "hooks there. Copy it (deepcopy, AveragedModel, torch.save of the whole model) outside of the context."
        )


def refuse_replica(name: str, block: nn.Module) -> None:
    """Raise BlockError if the block is a copy that DataParallel made, after someone wrapped the attached model."""
    if getattr(block, "_is_replica", False):
        raise BlockError(
            f"block {name!r} runs as a copy that DataParallel made, which can't be coded. Use DistributedDataParallel, "
            "or one device."
        )


def refuse_vmap(block: str) -> None:
    """Raise BlockError inside torch.func.vmap, because a penalty measured there can't be used outside."""
    if torch._C._functorch.maybe_current_level() is not None and any(
        interpreter.key() == torch._C._functorch.TransformType.Vmap
        for interpreter in torch._C._functorch.get_interpreter_stack() or ()
    ):
        raise BlockError(
            f"block {block!r} runs inside torch.func.vmap, which can't be coded: a code mixes the samples of a batch. "
            "Call the model once on the whole batch, or run vmap outside of observe() and substitute()."
        )


def raise_with_call(call: Call, error: Exception) -> NoReturn:
    """Raise the error of a block on coded samples, with what it was called with. Our own errors say enough."""
    # Callers catch these to try a smaller batch.
    short_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
    if isinstance(error, CsGanError) or short_of_memory or not any(call.encoded):  # it failed before the pass
        raise error
    inputs = described(call.block, call.encoded, call.roles)
    raise BlockError(
        f"block {call.name!r} fails in its coded pass, at N = {call.code.N} coded samples for K = {call.code.K}: "
        f"{type(error).__name__}: {error}\nCalled with ({inputs}). If the block needs a batch that can be divided "
        "by 4, say, give multiple=4, which rounds N, or a ratio with few values, Linear(..., levels=...). If an "
        'argument has no batch, say arguments={"name": "plain"}.'
    ) from error


class Hooks(ABC):
    """Forward pre-hook and forward hook of each coded block, paired by a stack of calls."""

    def __init__(self, coding: Coding) -> None:
        self.coding = coding
        self.ran: set[str] = set()  # the coded blocks that were called
        self.in_coded_pass = False  # inside a coded pass: nested coded blocks then run without coding
        self.failed: tuple[Call, BaseException | None] | None = None  # a call that raised an exception
        self._calls: list[Call | None] = []

    @abstractmethod
    def before(self, call: Call, inputs: Inputs) -> Inputs | None:
        """The inputs for the block, or None to keep its own."""

    @abstractmethod
    def after(self, call: Call, output: Any) -> Any:
        """The output of the block, or None to keep its own."""

    @contextmanager
    def installed(self, blocks: dict[str, nn.Module]) -> Iterator[None]:
        """A context with hooks on every block. They are removed on exit, also after an error."""
        with ExitStack() as stack:
            stack.callback(self._abandon)
            stack.enter_context(entered(self))
            for name, block in blocks.items():
                # First of the pre-hooks and last of the hooks, so all other hooks of the block run in the coded pass
                # as in the plain pass.
                pre = block.register_forward_pre_hook(Hook(self._pre(name, block)), prepend=True, with_kwargs=True)
                stack.callback(pre.remove)
                post = block.register_forward_hook(Hook(self._post(block)), with_kwargs=True, always_call=True)
                stack.callback(post.remove)
            yield

    def _abandon(self) -> None:
        """Clean up after unfinished calls. ``always_call`` covers exceptions, but not a KeyboardInterrupt."""
        while self._calls:
            call = self._calls.pop()
            if call is not None:
                call.cleanup.close()

    def _pre(self, name: str, block: nn.Module) -> Callable[..., Inputs | None]:
        def hook(called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs | None:
            if concerned := self._concerns(called, block):
                self._calls.append(None)  # first of all: the forward hook pops one entry, even if this hook raises
            refuse_replica(name, called)
            if not concerned or recomputing():
                return None
            self.ran.add(name)
            if self.in_coded_pass:
                return None
            refuse_vmap(name)
            call = self._calls[-1] = self.coding.call_of(name, block, (args, kwargs))
            return self.before(call, (args, kwargs))

        return hook

    def _post(self, block: nn.Module) -> Callable[..., Any]:
        def hook(called: nn.Module, _args: Any, _kwargs: Any, output: Any) -> Any:
            if not self._concerns(called, block):
                return None
            call = self._calls.pop()
            if call is None:
                return None
            with call.cleanup:
                error = sys.exc_info()[1]
                if error is not call.handled:  # with always_call, the hook also runs after an exception
                    self.failed = (call, error)
                    return None
                for argument in call.objects:
                    argument.refuse_change()
                return self.after(call, output)

        return hook

    def _concerns(self, called: nn.Module, block: nn.Module) -> bool:
        """Whether a call is ours: of the block itself, by the thread or task that is inside the context."""
        return called is block and is_inside(self)


class Observing(Hooks):
    """Keep the block's output. Also run its coded pass and add up the discrepancies."""

    def __init__(
        self, coding: Coding, discrepancy: Discrepancy, share_dropout: bool, penalties: dict[str, Tensor]
    ) -> None:
        super().__init__(coding)
        self.discrepancy, self.share_dropout, self.penalties = discrepancy, share_dropout, penalties
        self.grad_modes: set[bool] = set()  # of all calls

    def before(self, call: Call, inputs: Inputs) -> None:
        """Encode before the call, because the block may change its inputs in place."""
        self.grad_modes.add(torch.is_grad_enabled())
        with without_checkpoint(call.name):
            call.encoded = self.coding.encode(call, inputs)
        call.weights = call.cleanup.enter_context(recorded_weights(call.block))
        if self.share_dropout:
            call.masks = call.cleanup.enter_context(recorded_dropout(call.block, *inputs))

    def after(self, call: Call, output: Any) -> None:
        """Run the coded pass and measure its discrepancy from the plain output."""
        args, kwargs = call.encoded
        nearest = None if call.masks is None else call.code.nearest()
        with without_checkpoint(call.name):
            self.in_coded_pass = True
            try:
                with coded_now(), uncollected(), self.coding.second_pass(call, call.weights, call.masks, nearest):
                    coded_output = call.block(*args, **kwargs)
            except Exception as error:
                raise_with_call(call, error)
            finally:
                self.in_coded_pass = False
            history = self.coding.histories[call.name]
            penalty = output_penalty(call.name, output, coded_output, call.axes, call.code, self.discrepancy, history)
        before = self.penalties.get(call.name)
        self.penalties[call.name] = penalty if before is None else before + penalty


class Substituting(Hooks):
    """Run the block on coded samples only, and return the decoded output: one pass instead of two."""

    def __init__(self, coding: Coding, generator: torch.Generator | None) -> None:
        super().__init__(coding)
        self.generator = generator

    def before(self, call: Call, inputs: Inputs) -> Inputs:
        """Encode the batch in a random order."""
        refuse_checkpoint(call.name)
        refuse_collecting(call.name)
        call.permutation = torch.randperm(call.code.K, generator=self.generator, device="cpu")
        call.encoded = self.coding.encode(call, inputs)
        call.encoded_before = leaves_of(call.encoded)
        call.cleanup.enter_context(self.coding.second_pass(call))
        call.cleanup.enter_context(coded_now())
        call.cleanup.callback(setattr, self, "in_coded_pass", False)
        self.in_coded_pass = True
        return call.encoded

    @contextmanager
    def installed(self, blocks: dict[str, nn.Module]) -> Iterator[None]:
        """As for every context. An error of a block, which runs on coded samples here, says so."""
        try:
            with super().installed(blocks):
                yield
        except Exception as error:
            if self.failed is None or self.failed[1] is not error:
                raise
            raise_with_call(self.failed[0], error)

    def after(self, call: Call, output: Any) -> Any:
        """Decode, and restore the order of the batch."""
        refuse_filled(call.name, call.encoded, call.encoded_before)
        return decode_output(
            call.name, output, call.axes, call.code, call.permutation, self.coding.histories[call.name]
        )
