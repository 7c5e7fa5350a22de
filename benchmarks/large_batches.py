"""The part of ``benchmarks/coding.py`` for large batches: build codes, multiply them dense and in blocks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import Clock, Row, Variant, measure, rows_of, synchronised
from cs_gan import SplineCode
from cs_gan.core.nodes import coded_nodes, data_nodes
from cs_gan.core.product import multiply_batch, place
from cs_gan.core.splines import spline_matrix
from models import build_classifier

RATIO = 1.5


def torch_spline(nodes: Tensor, points: Tensor) -> Callable[[Tensor], Tensor]:  # (n,), (m,) -> (n, F) -> (m, F)
    """Fit and evaluate a natural cubic spline in torch, as a program without our matrices would in each step.

    Nodes are increasing. It solves the tridiagonal system for all features at once, like a spline library.
    """
    h = nodes.diff()
    piece = (torch.searchsorted(nodes, points, right=True) - 1).clamp(0, len(nodes) - 2)
    a, b, width = (part[:, None] for part in (points - nodes[piece], nodes[piece + 1] - points, h[piece]))
    steps, pivots = h.tolist(), list[float]()
    for above, below in itertools.pairwise(steps):
        pivots.append(2 * (above + below) - (above**2 / pivots[-1] if pivots else 0.0))

    def evaluate(y: Tensor) -> Tensor:
        right = 6 * (y.diff(dim=0) / h[:, None]).diff(dim=0)
        rows = list(right)
        for i in range(1, len(rows)):
            rows[i] = rows[i] - steps[i] / pivots[i - 1] * rows[i - 1]
        for i in reversed(range(len(rows))):
            after = steps[i + 1] * rows[i + 1] if i + 1 < len(rows) else 0.0
            rows[i] = (rows[i] - after) / pivots[i]
        end = torch.zeros_like(y[0])
        M = torch.stack([end, *rows, end])
        line = (b * y[piece] + a * y[piece + 1]) / width
        return line - a * b * ((b + width) * M[piece] + (a + width) * M[piece + 1]) / (6 * width)

    return evaluate


def build_rows(sizes: Sequence[int], repeats: int, clock: Clock) -> list[Row]:
    """Time to build E and D of a new code, to place them on a CPU too, and to get them from the cache."""
    # A new seed makes a code that isn't in the cache. Chebyshev nodes don't use it.
    seeds = itertools.count(time.time_ns())
    variants: dict[str, Variant] = {}
    for K in sizes:
        N = round(RATIO * K)
        variants[f"code of K = {K}, N = {N} built"] = partial(_new_code, K, N, seeds)
        variants[f"code of K = {K}, N = {N} built and placed"] = partial(_new_code, K, N, seeds, place=True)
        variants[f"code of K = {K}, N = {N} from the cache"] = partial(SplineCode, K, N)
    return [Row(name, timing) for name, timing in measure(variants, repeats, clock).items()]


def _new_code(K: int, N: int, seeds: Iterator[int], place: bool = False) -> None:
    code = SplineCode(K, N, seed=next(seeds))
    if place:
        code.placed("cpu")


def crossover_rows(sizes: Sequence[int], features: int, repeats: int, clock: Clock, device: str) -> list[Row]:
    """Encode and decode, forward and backward, dense and in blocks. Blocks are faster if the ratio is below 1."""
    rows = []
    for K in sizes:
        N = round(RATIO * K)
        names = f"encode + decode, K = {K}, dense", f"encode + decode, K = {K}, by blocks"
        variants = {name: _both_ways(K, N, features, device, "blocks" in name) for name in names}
        rows += rows_of(measure(variants, repeats, clock))
    return rows


def _both_ways(K: int, N: int, features: int, device: str, blocked: bool) -> Variant:
    alpha, beta = data_nodes("chebyshev", K), coded_nodes("chebyshev", N)
    pairs = [
        place(spline_matrix("natural", *nodes), torch.float32, torch.device(device), blocked)
        for nodes in ((alpha, beta), (beta, alpha))
    ]
    tensors = [torch.randn(rows, features, device=device, requires_grad=True) for rows in (K, N)]

    def run() -> None:
        outputs = [multiply_batch(*pair, x) for pair, x in zip(pairs, tensors, strict=True)]
        torch.autograd.grad(outputs, tensors, [outputs[0].detach(), outputs[1].detach()])

    return synchronised(run, device)


def share_rows(
    K: int, batch: int, block: str, slices: int, repeats: int, clock: Clock, device: str, network: str
) -> tuple[list[Row], float, float]:
    """Encode + decode of K samples as a share of a classifier's training step, in time and in FLOPs.

    A step of K samples may not fit into memory. So it measures a step of ``batch`` samples and codes 1 / ``slices`` of
    the block's features, and scales both, because they are proportional to the numbers of samples and features.
    """
    model = build_classifier(network, 10).to(device).to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    labels, optimizer = torch.arange(batch, device=device) % 10, torch.optim.SGD(model.parameters(), lr=0.0)
    sizes: list[int] = []
    hook = model.get_submodule(block).register_forward_hook(
        lambda _, args, output: sizes.extend((args[0][0].numel(), output[0].numel()))
    )
    with torch.no_grad(), hook, FlopCounterMode(display=False) as forward:
        model(images)
    code, (x, y) = SplineCode(K, round(RATIO * K)), (torch.randn(K, size // slices, device=device) for size in sizes)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(images), labels).backward()
        optimizer.step()

    coding = coding_of(code, x, y)
    with FlopCounterMode(display=False) as coded:
        coding()
    names = (
        f"{network} step, plain, {batch} samples",
        f"encode + decode of {block}, {K} samples, 1/{slices} of features",
    )
    variants = {names[0]: synchronised(step, device), names[1]: synchronised(coding, device)}
    timings = measure(variants, repeats, clock)
    shares = timings[names[1]].relative_to(timings[names[0]])
    scale = slices * batch / K
    flops = scale * coded.get_total_flops() / (3 * forward.get_total_flops())
    return [Row(name, timings[name]) for name in names], scale * shares.median, flops


def coding_of(code: SplineCode, x: Tensor, y: Tensor) -> Variant:  # (K, *F), (K, *G)
    """Encode x and decode outputs of y's shape, forward and backward, as a coded block does."""
    x = x.detach().requires_grad_()
    outputs = code.encode(y).detach().requires_grad_()  # (N, *G)
    grads = [code.encode(x).detach(), y]

    def run() -> None:
        torch.autograd.grad([code.encode(x), code.decode(outputs)], [x, outputs], grads)

    return run
