"""Is torch.compile faster? It times the critic's whole loss with gradient penalty: ``python benchmarks/compile.py``.

Computes the same loss and gradients in four ways, in turns: with torch's own second derivatives or with
:func:`cs_gan.gan.fast_double_backward` (as ``gradient_penalty`` does), each eager and compiled. The whole function is
compiled with ``fullgraph=True`` under ``torch._dynamo.config.trace_autograd_ops`` (torch 2.11 or later). Gradients are
compared first.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # models/ and benchmarks/ are not installed

from benchmarks.timing import (  # noqa: E402
    Row,
    Variant,
    clock_for,
    measure,
    parser,
    report,
    rows_of,
    synchronised,
    width_of,
)  # fmt: skip
from cs_gan.gan import critic_loss, fast_double_backward  # noqa: E402
from models import build_gan  # noqa: E402

EAGER, FAST, COMPILED = "eager, torch's own", "eager, fast_double_backward", "compiled, torch's own"
BOTH = "compiled, fast_double_backward"
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def whole_loss(critic: nn.Module, context: Callable[[], AbstractContextManager[None]] = nullcontext) -> Loss:
    """The critic loss plus 10 times the gradient penalty, whose forward pass runs in ``context``.

    The interpolated images are an argument, because ``requires_grad_`` doesn't work inside a compiled function.
    """

    def loss(real: Tensor, fake: Tensor, between: Tensor) -> Tensor:
        with context():
            scores = critic(between)
        (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
        slopes = gradient.flatten(1).norm(dim=1)
        loss: Tensor = critic_loss(critic(real), critic(fake)) + 10 * (slopes - 1).square().mean()
        return loss

    return loss


def compare(network: str, options: argparse.Namespace) -> tuple[list[Row], dict[str, float]]:
    """For one network: rows, seconds to compile, and the largest difference between gradients."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    critic = build_gan(network, **width_of(options.width))[1].to(options.device)
    critic = critic.to(memory_format=torch.channels_last)
    shape = (options.batch, 3, 32, 32)
    real, fake = (torch.randn(shape, device=options.device).contiguous(memory_format=torch.channels_last) for _ in "rf")
    alpha = torch.rand(options.batch, 1, 1, 1, device=options.device)
    batch = (real, fake, torch.lerp(fake, real, alpha).requires_grad_())
    parameters = list(critic.parameters())

    def gradients(loss: Loss) -> list[Tensor]:
        return list(torch.autograd.grad(loss(*batch), parameters))

    losses = {EAGER: whole_loss(critic), FAST: whole_loss(critic, fast_double_backward)}
    expected, seconds = gradients(losses[EAGER]), {}
    others = [gradients(losses[FAST])]
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        for name, plain in {COMPILED: losses[EAGER], BOTH: losses[FAST]}.items():
            losses[name] = torch.compile(plain, fullgraph=True, backend=options.backend)
            start = time.perf_counter()
            others.append(gradients(losses[name]))
            seconds[f"{network}, {name}: seconds to compile"] = time.perf_counter() - start
    scale = max(float(x.abs().max()) for x in expected)
    difference = max(float((a - b).abs().max()) for mine in others for a, b in zip(mine, expected, strict=True)) / scale
    if difference > 1e-4:  # rounding of float32 sums in another order
        raise AssertionError(f"{network}: gradients differ by {difference:.2g} of the largest.")

    def variant(loss: Loss) -> Variant:
        return synchronised(lambda: gradients(loss), options.device)

    variants = {f"{network}, {name}": variant(loss) for name, loss in losses.items()}
    rows = rows_of(measure(variants, options.repeats, clock_for(options.device)), f"{network}, {FAST}")
    return rows, {**seconds, f"{network}: largest difference": difference}


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    words = parser(__doc__)
    words.add_argument("--networks", default="paper32,mimicry32,dcgan32", help="separated by commas")
    words.add_argument("--width", type=int, default=64, help="of all networks (64); 0 for their own")
    words.add_argument("--batch", type=int, default=32, help="images (32)")
    words.add_argument("--threads", type=int, help="torch threads on the CPU (default: all)")
    words.add_argument("--backend", default="inductor", help="of torch.compile")
    options = words.parse_args(arguments)
    if options.toy:
        options.width, options.batch, options.repeats, options.backend = 8, 4, 1, "aot_eager"
        options.networks = "dcgan32"
    if options.threads:
        torch.set_num_threads(options.threads)
    if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
        print(f"torch {torch.__version__} can't compile a gradient penalty: use 2.11 or later.")
        return
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for network in options.networks.split(","):
        more, found = compare(network, options)
        rows, figures = rows + more, figures | found
    report("critic's loss and gradients", rows, options.device, options.json, **figures)


if __name__ == "__main__":
    main()
