"""What an attack must leave as it was: global random state, training modes, the defence's own draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from cs_gan.core import RandomizedCodedInference
from cs_gan.errors import AttackError

Forward = Callable[[Tensor], Tensor]  # (K, *F) -> (K, classes)


@contextmanager
def undisturbed(device: torch.device, generator: torch.Generator, *forwards: object) -> Iterator[None]:
    """Around an attack: modules among ``forwards`` in eval mode, randomness from ``generator`` alone.

    Global generators are seeded from ``generator`` inside, since a defence that draws from them must not
    show the attacker the draws it will serve with, and put back after.

    Raises:
        AttackError: if the generator isn't on the CPU.
    """
    if generator.device.type != "cpu":
        raise AttackError(f"generator is on {generator.device}: give a CPU generator, torch.Generator().")
    modules = [forward for forward in forwards if isinstance(forward, nn.Module)]
    cuda = [device] if device.type == "cuda" else []
    seed = int(torch.randint(2**62, (), generator=generator, device="cpu"))
    with torch.random.fork_rng(devices=cuda), ExitStack() as stack:
        # torch.manual_seed would also seed every other accelerator, which nobody restores.
        torch.default_generator.manual_seed(seed)
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        for module in modules:
            if isinstance(module, RandomizedCodedInference):
                stack.enter_context(module.drawing_from(generator))
        stack.enter_context(evaluating(*modules))
        yield


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Eval mode inside; after it each submodule's own mode again."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


class PassCounter:
    """Counts the forward passes (calls) of modules, and the samples in them, while it is entered."""

    def __init__(self, *modules: nn.Module) -> None:
        self.modules = list({id(module): module for module in modules}.values())
        self.calls = self.samples = 0
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> PassCounter:
        self._handles = [module.register_forward_pre_hook(self._count) for module in self.modules]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _count(self, _module: nn.Module, args: tuple[object, ...]) -> None:
        self.calls += 1
        self.samples += len(args[0]) if args and isinstance(args[0], Tensor) else 0


def clock(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
