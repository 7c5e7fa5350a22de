"""Does torch.compile pay? The critic's whole loss, gradient penalty inside: ``python benchmarks/compile.py``.

Four ways to one loss and its gradients, taking turns in one process: with torch's own second derivatives or with
:func:`cs_gan.gan.fast_double_backward` (what ``gradient_penalty`` does), eager or the whole function compiled with
``fullgraph=True`` under ``torch._dynamo.config.trace_autograd_ops`` (torch from 2.11). Gradients are compared first.
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

from benchmarks.timing import Row, Variant, measure, report, synchronised  # noqa: E402
from cs_gan.gan import critic_loss, fast_double_backward  # noqa: E402
from models import build_gan  # noqa: E402

EAGER, FAST, COMPILED = "eager, torch's own", "eager, fast_double_backward", "compiled, torch's own"
BOTH = "compiled, fast_double_backward"
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def whole_loss(critic: nn.Module, context: Callable[[], AbstractContextManager[None]] = nullcontext) -> Loss:
    """Real, fake and ten times the gradient penalty, whose forward pass is in ``context``.

    The images between come from outside: a compiled function can't return what depends on a ``requires_grad_`` in it.
    """

    def loss(real: Tensor, fake: Tensor, between: Tensor) -> Tensor:
        with context():
            scores = critic(between)
        (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
        slopes = gradient.flatten(1).norm(dim=1)
        return critic_loss(critic(real), critic(fake)) + 10 * (slopes - 1).square().mean()

    return loss


def compare(network: str, options: argparse.Namespace) -> tuple[list[Row], dict[str, float]]:
    """One network: rows, seconds that compiling took, and the largest difference between gradients."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    critic = build_gan(network, **({"width": options.width} if options.width else {}))[1].to(options.device)
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
    if difference > 1e-4:  # float32, sums over images in another order
        raise AssertionError(f"{network}: gradients differ by {difference:.2g} of the largest.")

    def variant(loss: Loss) -> Variant:
        return synchronised(lambda: gradients(loss), options.device)

    clock = time.process_time if options.device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    timings = measure({name: variant(loss) for name, loss in losses.items()}, options.repeats, clock)
    base = timings[FAST]
    rows = [Row(f"{network}, {name}", timing, None if name == FAST else base) for name, timing in timings.items()]
    return rows, {**seconds, f"{network}: largest difference": difference}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--networks", default="paper32,mimicry32,dcgan32", help="by commas")
    parser.add_argument("--width", type=int, default=64, help="of all networks (64); 0 for their own")
    parser.add_argument("--batch", type=int, default=32, help="images (32)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (5)")
    parser.add_argument("--threads", type=int, help="of torch on the CPU; all by default")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--toy", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.toy:
        options.width, options.batch, options.repeats, options.backend = 8, 4, 1, "aot_eager"
        options.networks = "dcgan32"
    if options.threads:
        torch.set_num_threads(options.threads)
    if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
        print(f"torch {torch.__version__} can't compile a gradient penalty: that takes 2.11 or later.")
        return
    rows, figures = [], {}
    for network in options.networks.split(","):
        more, found = compare(network, options)
        rows, figures = rows + more, figures | found
    report("critic's loss and gradients", rows, options.device, options.json, **figures)


if __name__ == "__main__":
    main()
