"""What will be differentiated twice: the kernels it needs, and compiled code, which has no second derivative."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cs_gan.errors import BlockError

_AOT = "torch._functorch.aot_autograd"  # ahead-of-time backends import it at their first use


def twice_differentiable() -> AbstractContextManager[None]:
    """A context for a forward pass in which attention runs as matrix products, on CPU and GPU.

    torch's fused attention kernels have no second derivative. The choice of kernel is made in the forward pass, so the
    backward passes may be outside. An exception is attention inside ``torch.utils.checkpoint``, which chooses again
    when it recomputes: then put the whole step, with its backward, into ``sdpa_kernel(SDPBackend.MATH)``.
    """
    context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return context


def require_second_derivative(call: str, output: Tensor, by: Tensor) -> None:
    """Raise an error if the graph from ``output`` back to ``by`` contains code that is compiled ahead of time.

    inductor and every other backend on AOTAutograd can differentiate only once. torch 2.14 raises an error in the
    backward that doesn't say what to do. The second derivative may also be missing without any error. This function
    checks the graph itself, so it finds compiled modules, methods and functions anywhere. ``backend="eager"`` passes,
    because its graph is plain. While torch.compile traces, nothing is checked.

    Args:
        call: name of the function, for the error message.
        output: the tensor to differentiate twice.
        by: the leaf to differentiate by.

    Raises:
        BlockError: if there is such code.
    """
    if _AOT not in sys.modules or torch.compiler.is_compiling():
        return
    if output.grad_fn is None or by.grad_fn is not None or not by.requires_grad:
        return
    users: dict[Any, list[Any]] = {output.grad_fn: []}
    todo: list[Any] = [output.grad_fn]
    while todo:
        node = todo.pop()
        for below, _ in node.next_functions:
            if below is not None and below not in users:
                users[below] = []
                todo.append(below)
            if below is not None:
                users[below].append(node)
    if not any(_compiled(node) for node in users):
        return
    # Compiled code that is not on a path to `by`, such as code that computes a weight, is differentiated only once.
    todo, seen = [torch.autograd.graph.get_gradient_edge(by).node], set()
    while todo:
        node = todo.pop()
        if _compiled(node):
            raise BlockError(
                f"{call} got a network with code that torch.compile compiled ahead of time (inductor, aot_eager): "
                'torch has no second derivatives of it. Compile with backend="eager"; or leave this network uncompiled '
                "and compile the generator; or write the whole loss with torch.autograd.grad(create_graph=True) and "
                "compile that under torch._dynamo.config.patch(trace_autograd_ops=True) (torch 2.11 and later)."
            )
        if node not in seen:
            seen.add(node)
            todo += users.get(node, [])


def _compiled(node: Any) -> bool:
    return type(node).__name__ == "CompiledFunctionBackward"
