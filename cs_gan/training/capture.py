"""A whole training step as one CUDA graph: it knows tensors and a function of them, nothing of what is trained.

A step of small networks is thousands of kernels, and Python launches them slower than a GPU runs them. A graph
launches all of them at once. It repeats what it saw, with the same tensors: so whatever changes from step to step must
be a tensor that is there to be written to (an input, a learning rate, a weight), and whatever else changes is another
*variant* of the step with a graph of its own.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

Outputs = dict[str, Tensor]
Capture = Callable[[Callable[[], Outputs]], tuple[Outputs, Callable[[], None]]]

WARM_UP = 2
"""Eager calls of a variant before it is captured: they make optimiser states, workspaces and cached matrices."""

KEPT = 4
"""Graphs at a time. A growing N passes through variants that never come back."""


@dataclass
class _Graph:
    outputs: Outputs
    replay: Callable[[], None]
    held: Any


class CapturedStep:
    """``function(**inputs)``, run as it is a few times and then as a graph of what it does.

    ::

        step = CapturedStep(function, device, capture=CudaGraphs())
        losses = step(("N", 64), {"latents": z, "rows": rows})   # variant, inputs

    A captured call does what the plain one does, in the same order on the same numbers, so results don't depend on
    which of them ran.

    Args:
        function: of tensors on ``device``, to tensors there. Beside its inputs it may only read and write tensors that
            stay where they are, such as weights and optimiser states.
        device: where the inputs are brought to, without a wait.
        capture: :class:`CudaGraphs`, or None to call the function every time.
        what: a word for the function, for messages.
    """

    def __init__(
        self, function: Callable[..., Outputs], device: torch.device, *, capture: Capture | None, what: str = "the step"
    ) -> None:
        self._function, self._device, self._capture, self._what = function, device, capture, what
        self._inputs: dict[str, Tensor] = {}
        self._calls: dict[Hashable, int] = {}
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()

    @property
    def captures(self) -> bool:
        """Whether graphs are used: as asked, until a capture has failed."""
        return self._capture is not None

    def __call__(self, variant: Hashable, inputs: Mapping[str, Tensor], held: Any = None) -> Outputs:
        """One step.

        Args:
            variant: all that the function depends on beside tensors. Each is captured on its own.
            inputs: the function's keyword arguments; each has the shape and type that it came with first.
            held: kept alive as long as the graph, such as constants from a cache, which the graph reads by address.

        Returns:
            The function's tensors. The next call writes over them.
        """
        if self._capture is None:
            brought = {name: self._pinned(value).to(self._device, non_blocking=True) for name, value in inputs.items()}
            return self._function(**brought)
        for name, value in inputs.items():  # to where graphs read them
            if name not in self._inputs:
                self._inputs[name] = torch.empty_like(value, device=self._device)
            self._inputs[name].copy_(self._pinned(value), non_blocking=True)
        call = partial(self._function, **{name: self._inputs[name] for name in inputs})
        graph = self._graphs.get(variant)
        if graph is None:
            calls = self._calls[variant] = self._calls.get(variant, 0) + 1
            if calls <= WARM_UP:
                return self._aside(call)
            graph = self._captured(call, variant, held)
            if graph is None:
                return call()
        self._graphs.move_to_end(variant)
        graph.replay()
        return graph.outputs

    def _pinned(self, value: Tensor) -> Tensor:
        """In page-locked memory, from which a copy to a GPU takes no wait."""
        return value.pin_memory() if self._device.type == "cuda" and value.device.type == "cpu" else value

    def _aside(self, call: Callable[[], Outputs]) -> Outputs:
        """Call it on a stream of its own, as what is captured afterwards wants it."""
        if self._device.type != "cuda":
            return call()
        main, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(main)
        with torch.cuda.stream(side):
            outputs = call()
        main.wait_stream(side)
        for value in outputs.values():
            value.record_stream(main)
        return outputs

    def _captured(self, call: Callable[[], Outputs], variant: Hashable, held: Any) -> _Graph | None:
        """A graph of the call, which has not run yet; None if it can't be captured, now and from now on."""
        assert self._capture is not None
        while len(self._graphs) >= KEPT:
            self._graphs.popitem(last=False)
        try:
            outputs, replay = self._capture(call)
        except RuntimeError as error:
            self._capture = None
            self._graphs.clear()
            reason = str(error).strip().split("\n")[0]
            warnings.warn(f"{self._what} can't be captured in a CUDA graph and runs without: {reason}", stacklevel=4)
            return None
        self._calls.pop(variant)  # captured anew after it was dropped, it warms up again
        graph = self._graphs[variant] = _Graph(outputs, replay, held)
        return graph


class CudaGraphs:
    """Records what functions launch on CUDA, without running them: a :data:`Capture`.

    The graphs share their memory: they are replayed one after another, and what one leaves for the next step lies in
    tensors that were there before.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, function: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
        """The tensors that the function gives, and what runs the recording and so fills them.

        Raises:
            RuntimeError: for what a graph can't hold, such as a tensor read on the host.
        """
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # Threads that make batches pin memory meanwhile; that is no business of the capture.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = function()
        finally:
            torch.cuda.set_stream(stream)  # a capture that fails leaves its own
        return outputs, graph.replay
