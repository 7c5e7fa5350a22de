"""State that an attack must not change: global random state, training modes, the defence's own draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from cs_gan.core import RandomizedCodedInference
from cs_gan.errors import AttackError
from cs_gan.restore import evaluation_mode, isolated_rng

Forward = Callable[[Tensor], Tensor]  # (K, *F) -> (K, classes)


@contextmanager
def undisturbed(device: torch.device, generator: torch.Generator, *forwards: object) -> Iterator[None]:
    """A context for an attack: modules in ``forwards`` are in eval mode, and randomness comes only from ``generator``.

    Inside, global generators are seeded from ``generator``. So a defence that draws from them does not reveal its later
    draws to the attacker. On exit they are restored.

    Raises:
        AttackError: if the generator isn't on the CPU.
    """
    if generator.device.type != "cpu":
        raise AttackError(f"generator is on {generator.device}: give a CPU generator, torch.Generator().")
    modules = [forward for forward in forwards if isinstance(forward, nn.Module)]
    seed = int(torch.randint(2**62, (), generator=generator, device="cpu"))
    with isolated_rng(seed, device), evaluation_mode(*modules), ExitStack() as stack:
        for module in modules:
            if isinstance(module, RandomizedCodedInference):
                stack.enter_context(module.drawing_from(generator))
        yield


class PassCounter:
    """A context that counts forward passes (calls) of modules and the samples in them."""

    def __init__(self, *modules: nn.Module) -> None:
        self.modules = list({id(module): module for module in modules}.values())
        self.calls = self.samples = 0
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> PassCounter:
        self._handles = [module.register_forward_pre_hook(self._count, with_kwargs=True) for module in self.modules]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _count(self, _module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        self.calls += 1
        self.samples += next((len(value) for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), 0)


def clock(device: torch.device) -> float:
    """The time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
