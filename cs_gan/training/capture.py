"""A whole training step as one CUDA graph. This module only knows tensors and a function of them.

A step of small networks launches thousands of kernels, and Python launches them slower than a GPU runs them. A graph
launches all of them at once. It repeats the recorded kernels on the same tensors. So a value that changes between steps
must be in a tensor that can be written to (an input, a learning rate, a weight). Any other change is another *variant*
of the step, with its own graph.
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
"""Eager calls of a variant before capture. They create optimiser states, workspaces and cached matrices."""

KEPT = 4
"""Maximum number of graphs. A growing N goes through variants that never return."""


@dataclass
class _Graph:
    outputs: Outputs
    replay: Callable[[], None]
    held: Any


class CapturedStep:
    """``function(**inputs)``, run eagerly a few times and then as a CUDA graph.

    ::

        step = CapturedStep(function, device, capture=CudaGraphs())
        losses = step(("N", 64), {"latents": z, "rows": rows})   # variant, inputs

    A captured call does the same operations as an eager one, in the same order on the same numbers. So results don't
    depend on which of them ran.

    Args:
        function: takes and returns tensors on ``device``. Besides its inputs it may only read and write tensors at
            fixed addresses, such as weights and optimiser states.
        device: inputs are copied there, without waiting.
        capture: :class:`CudaGraphs`, or None to call the function every time.
    """

    def __init__(self, function: Callable[..., Outputs], device: torch.device, *, capture: Capture | None) -> None:
        self._function, self._device, self._capture = function, device, capture
        self._inputs: dict[str, Tensor] = {}
        self._calls: dict[Hashable, int] = {}
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()

    @property
    def captures(self) -> bool:
        """Whether graphs are used: as requested, until a capture fails."""
        return self._capture is not None

    def __call__(self, variant: Hashable, inputs: Mapping[str, Tensor], held: Any = None) -> Outputs:
        """One step.

        Args:
            variant: everything that the function depends on besides tensors. Each variant has its own graph.
            inputs: the function's keyword arguments, always with the shapes and types of the first call.
            held: objects to keep alive with the graph, such as cached constants, which the graph reads by address.

        Returns:
            The function's tensors. The next call overwrites them.
        """
        if self._capture is None:
            brought = {name: self._pinned(value).to(self._device, non_blocking=True) for name, value in inputs.items()}
            return self._function(**brought)
        for name, value in inputs.items():  # to the addresses that graphs read
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
        """A copy in page-locked memory, from which a copy to a GPU doesn't wait."""
        return value.pin_memory() if self._device.type == "cuda" and value.device.type == "cpu" else value

    def _aside(self, call: Callable[[], Outputs]) -> Outputs:
        """Call it on a separate stream, as required before a capture."""
        if self._device.type != "cuda":
            return call()
        main, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            outputs = call()
        main.wait_stream(side)
        for value in outputs.values():
            value.record_stream(main)
        return outputs

    def _captured(self, call: Callable[[], Outputs], variant: Hashable, held: Any) -> _Graph | None:
        """A graph of the call, which has not run yet. None if capture fails; then no further one is tried."""
        assert self._capture is not None
        while len(self._graphs) >= KEPT:
            self._graphs.popitem(last=False)
        try:
            outputs, replay = self._capture(call)
        except RuntimeError as error:
            self._capture = None
            self._graphs.clear()
            reason = str(error).strip().split("\n")[0]
            warnings.warn(f"the step can't be captured in a CUDA graph, so it runs without one: {reason}", stacklevel=4)
            return None
        self._calls.pop(variant)  # a dropped variant warms up again before its next capture
        graph = self._graphs[variant] = _Graph(outputs, replay, held)
        return graph


class CudaGraphs:
    """Records what functions launch on CUDA, without running them: a :data:`Capture`.

    The graphs share their memory. They are replayed one after another, and results for the next step are in tensors
    that existed before.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, function: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
        """The tensors that the function returns, and a function that replays the graph to fill them.

        Raises:
            RuntimeError: for operations that a graph can't hold, such as reading a tensor on the host.
        """
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # Threads that make batches pin memory at the same time, which must not disturb the capture.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = function()
        finally:
            torch.cuda.set_stream(stream)  # a failed capture leaves its own stream current
        return outputs, graph.replay
