"""The coded pass through a block: it must not change the block's state, and shares weights and masks with the plain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from cs_gan.core.block_state import Parameters, unchanged
from cs_gan.core.recompute import refuse_checkpoint_inside
from cs_gan.errors import BatchError

BATCH_NORM_POLICIES = ("keep", "update", "running")
Masks = dict[nn.Module, list[Tensor]]
Weights = dict[nn.Module, list[Tensor]]


@contextmanager
def recorded_weights(block: nn.Module) -> Iterator[Weights]:
    """A context for the plain pass. It records the value of each parametrized weight (spectral norm) at each use.

    ``torch.nn.utils.parametrize.cached()`` would be shorter. But in a block that uses one layer twice, it would run
    one power iteration instead of two in the plain pass.
    """
    weights: Weights = {}

    def record(module: nn.Module, _args: Any, value: Any) -> None:
        weights.setdefault(module, []).append(value)

    with ExitStack() as stack:
        for module in block.modules():
            if isinstance(module, parametrize.ParametrizationList):
                stack.callback(module.register_forward_hook(record).remove)
        yield weights


@contextmanager
def coded_pass(
    name: str,
    block: nn.Module,
    policy: str,
    parameters: Parameters,
    weights: Weights | None = None,
    masks: Masks | None = None,
    nearest: Tensor | None = None,
) -> Iterator[None]:
    """A context for the coded pass.

    Coded samples do not change the block's state (:func:`cs_gan.core.block_state.unchanged`), unless the policy is
    ``update``. Batch norm uses the statistics of the coded batch, or with ``running`` its running statistics. In eval
    mode it uses the running statistics with every policy, as in the plain pass.

    ``weights`` and ``masks`` are those of the plain pass before. Without them the coded pass computes its own, as when
    it replaces the plain pass.

    Raises:
        BlockError: as :func:`cs_gan.core.block_state.unchanged`.
    """
    with ExitStack() as stack:
        if policy != "update":
            stack.enter_context(unchanged(f"block {name!r}", "its coded pass", block, parameters))
        for module in block.modules():
            if policy == "running" and isinstance(module, _NormBase) and module.training:
                _set_for_now(stack, module, "training", False)
                stack.callback(module.register_forward_pre_hook(refuse_checkpoint_inside).remove)
            if weights is not None:
                if module in weights:
                    _set_for_now(stack, module, "forward", _in_turn(weights[module]))
                    stack.callback(module.register_forward_pre_hook(refuse_checkpoint_inside).remove)
                _keep_old_style_weight(stack, module)
            if masks is not None and nearest is not None and module in masks:
                _set_for_now(stack, module, "training", False)
                stack.callback(module.register_forward_pre_hook(refuse_checkpoint_inside).remove)
                stack.callback(module.register_forward_hook(_replay(masks[module], nearest)).remove)
        yield


def _set_for_now(stack: ExitStack, module: nn.Module, attribute: str, value: Any) -> None:
    """Set an attribute until the stack closes."""
    if attribute in vars(module):
        stack.callback(setattr, module, attribute, getattr(module, attribute))
    else:  # the new attribute hides the one of the class
        stack.callback(delattr, module, attribute)
    setattr(module, attribute, value)


def _keep_old_style_weight(stack: ExitStack, module: nn.Module) -> None:
    """Remove the hooks that recompute a weight, with a power iteration, before each forward.

    The module then keeps the weight of the plain pass.
    """
    hooks = module._forward_pre_hooks
    if any(isinstance(hook, SpectralNorm | WeightNorm) for hook in hooks.values()):
        before = dict(hooks)
        stack.callback(hooks.update, before)  # runs after clear, so the hooks also keep their order
        stack.callback(hooks.clear)
        for key, hook in before.items():
            if isinstance(hook, SpectralNorm | WeightNorm):
                del hooks[key]
        stack.callback(module.register_forward_pre_hook(refuse_checkpoint_inside).remove)


def _in_turn(values: list[Tensor]) -> Callable[[], Tensor]:
    """A function that returns the values one by one, and then always the last one."""
    remaining = iter(values)
    return lambda: next(remaining, values[-1])


@contextmanager
def recorded_dropout(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Masks]:
    """A context for the plain pass. It records the mask of each dropout module without changing the random state.

    Args:
        block: the block that is called next.
        args, kwargs: its arguments. They are needed if the block is a dropout module itself: its own pre-hook is
            running already, so a new pre-hook would not run for this call.
    """
    masks: Masks = {}

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module.training:
            x = args[0] if args else kwargs["input"]
            devices = [x.device] if x.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices), torch.no_grad():
                masks.setdefault(module, []).append(module.forward(torch.ones_like(x)))

    with ExitStack() as stack:
        for module in block.modules():
            # Alpha dropout also shifts its input, so a mask can't represent it.
            if isinstance(module, _DropoutNd) and type(module).__name__.startswith("Dropout"):
                if module is block:
                    record(module, args, kwargs)
                else:
                    stack.callback(module.register_forward_pre_hook(record, with_kwargs=True).remove)
        yield masks


def _replay(masks: list[Tensor], nearest: Tensor) -> Any:
    """A forward hook: coded sample n gets the mask of the data sample with the nearest node."""
    remaining = iter(masks)

    def replay(_module: nn.Module, _args: Any, x: Tensor) -> Tensor:
        mask = next(remaining)
        if mask.shape[1:] != x.shape[1:] or x.shape[0] != len(nearest):
            raise BatchError(
                f"share_dropout: a dropout saw {tuple(mask.shape)} in the plain pass and {tuple(x.shape)} in the "
                "coded one. Sharing needs the batch as first axis; leave share_dropout off for this block."
            )
        return x * mask[nearest]

    return replay
