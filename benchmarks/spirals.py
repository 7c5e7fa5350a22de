"""Two spirals: compare the decision boundaries of ERM, mixup, logit norm and coded training.

``python -m benchmarks.spirals`` prints the table, and writes docs/pictures/spirals.png with spirals.csv beside it. For
each method the best of equally many strengths is chosen, with separate seeds and points.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from cs_gan import CodedSmoothing, Linear
from cs_gan.data import batch_indices
from cs_gan.randomness import derive_seed, stream
from cs_gan.report.chart import INK, PALETTE, save_figure
from cs_gan.supervised import MixUp, boundary, classifier_step, decision_field, jacobian_norm, segment_energy
from models import build_classifier

EXTENT, RESOLUTION = 1.2, 401
TURNS = 1.5  # of an arm; neighbouring arms are 1 / (2 TURNS) apart
BATCH, LEARNING_RATE = 64, 0.01
SOFTMAX = nn.Softmax(1)
MEASURES = (
    "accuracy (%)",
    "boundary length",
    "boundary curvature",
    "Jacobian norm",
    "energy, logits",
    "energy, probabilities",
)


@dataclass(frozen=True)
class Method:
    """A training method and the strengths to try. ERM has none."""

    name: str
    strengths: tuple[float, ...] = (0.0,)
    ratio_end: float = 1.5


METHODS = (
    Method("ERM"),
    Method("mixup", (0.1, 0.3, 1.0)),
    Method("logit norm", (0.001, 0.01, 0.1)),
    Method("coded, N from K to 1.5 K", (0.1, 0.3, 0.5)),
    Method("coded, N = K", (0.1, 0.3, 0.5), 1.0),
)


def two_spirals(
    n: int, *, noise: float = 0.03, seed: int = 0
) -> tuple[Tensor, Tensor]:  # -> (n, 2) float32, (n,) int64
    """Points on two arms that wind around the origin and are symmetric about it. Labels alternate between 0 and 1.

    An arm is ``r (cos 2 pi TURNS r, sin 2 pi TURNS r)``. The radius r is the root of a uniform number, so points are
    about as dense outside as inside. Lang and Witbrock's spirals ("Learning to tell two spirals apart", 1988)
    have three turns.

    Args:
        n: number of points, at least 2.
        noise: standard deviation of the Gaussian noise on both coordinates; the arms reach radius 1.
        seed: for all random draws.
    """
    generator = stream(seed, "two spirals")
    radius = torch.rand(n, generator=generator, dtype=torch.float64).sqrt()
    labels = torch.arange(n) % 2
    angle = 2 * math.pi * TURNS * radius
    arm = torch.stack([angle.cos(), angle.sin()], 1) * (radius * (1 - 2 * labels))[:, None]
    drawn = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return (arm + noise * drawn).float(), labels


def train(method: Method, strength: float, seed: int, steps: int, points: int, noise: float) -> nn.Module:
    """An MLP (2 -> 64 -> 64 -> 64 -> 2) on ``points`` of the spirals; Adam, cosine schedule."""
    x, labels = two_spirals(points, noise=noise, seed=derive_seed(seed, "train"))
    torch.manual_seed(derive_seed(seed, "weights"))
    network = build_classifier("mlp", 2, features=2)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    is_coded = method.name.startswith("coded")
    coded = CodedSmoothing(network, [""], Linear(1.0, method.ratio_end)) if is_coded else None
    for step in range(steps):
        if coded:
            coded.set_step(step, steps)
        rows = batch_indices(points, BATCH, step, seed=seed)
        classifier_step(
            network,
            optimizer,
            x[rows],
            labels[rows],
            generator=stream(seed, "method", step),
            num_classes=2,
            mix=MixUp(strength) if method.name == "mixup" else None,
            logit_norm=strength if method.name == "logit norm" else 0.0,
            coded=coded,
            mu=strength if coded else 0.0,
        )
        schedule.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, labels: Tensor) -> float:  # (n, 2), (n,)
    """The accuracy in percent."""
    return 100 * float((network(x).argmax(1) == labels).float().mean())


def measures(network: nn.Module, noise: float, seed: int) -> dict[str, float]:
    """All MEASURES, on points that were not used for training or for the choice of strengths.

    The scale of the logits has less influence on the energy of the probabilities.
    """
    x, labels = two_spirals(4000, noise=noise, seed=derive_seed(seed, "test"))
    edge = boundary(decision_field(network, EXTENT, RESOLUTION), EXTENT)
    energies = [
        segment_energy(each, x, stream(seed, "segments")) for each in (network, nn.Sequential(network, SOFTMAX))
    ]
    return dict(zip(MEASURES, (accuracy(network, x, labels), *edge, jacobian_norm(network, x), *energies), strict=True))


def table(found: Mapping[str, Sequence[Mapping[str, float]]], chosen: Mapping[str, float]) -> str:
    """Markdown: mean and standard error over the seeds."""
    lines = [f"| method | strength | {' | '.join(MEASURES)} |", "|---" * (2 + len(MEASURES)) + "|"]
    for name, runs in found.items():
        cells = [mean_and_error([run[measure] for run in runs]) for measure in MEASURES]
        lines.append(f"| {name} | {chosen[name]:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def mean_and_error(values: Sequence[float]) -> str:
    """``94.74 ± 0.29``, with two significant digits of the error if it is below 100."""
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    decimals = max(0, 1 - math.floor(math.log10(error))) if error else 2
    return f"{np.mean(values):,.{decimals}f} ± {error:,.{decimals}f}"


def draw(networks: Mapping[str, nn.Module], found: Mapping[str, Mapping[str, float]], noise: float, points: int,
         seed: int, path: Path) -> None:  # fmt: skip
    """One panel per method: the probability of class 1, the boundary, the training points and the numbers."""
    figure = Figure(figsize=(3.3 * len(networks), 4.3), layout="constrained")
    axis = np.linspace(-EXTENT, EXTENT, RESOLUTION)
    x, labels = two_spirals(points, noise=noise, seed=derive_seed(seed, "train"))
    for column, (name, network) in enumerate(networks.items(), 1):
        axes = figure.add_subplot(1, len(networks), column)
        field = decision_field(network, EXTENT, RESOLUTION)
        axes.contourf(axis, axis, 1 / (1 + np.exp(-field)), levels=20, cmap="RdBu", vmin=-0.2, vmax=1.2)
        axes.contour(axis, axis, field, levels=[0.0], colors="black", linewidths=1.4)
        for label in (0, 1):
            own = x[labels == label]
            axes.scatter(own[:, 0], own[:, 1], s=9, color=PALETTE[label], edgecolors="white", linewidths=0.4)
        values = found[name]
        axes.set_title(name, fontsize=11, loc="left")
        axes.text(
            0, -0.03, f"accuracy {values['accuracy (%)']:.1f} %\nboundary: length {values['boundary length']:.1f}, "
            f"|curvature| {values['boundary curvature']:.1f}\nJacobian {values['Jacobian norm']:.1f}, "
            f"energy {values['energy, logits']:,.0f}",
            fontsize=9, color=INK, transform=axes.transAxes, va="top",
        )  # fmt: skip
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
    save_figure(figure, path, 110)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)  # a third of the size


def main(arguments: Sequence[str] | None = None) -> int:
    """Choose strengths, train, measure, draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spirals", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/pictures/spirals.png"))
    parser.add_argument("--seeds", type=int, default=8, help="networks to measure for each method (%(default)s)")
    parser.add_argument("--tuning-seeds", type=int, default=3, help="networks to choose each strength (%(default)s)")
    parser.add_argument("--steps", type=int, default=1500, help="training steps (%(default)s)")
    parser.add_argument("--points", type=int, default=200, help="training points (%(default)s)")
    parser.add_argument("--noise", type=float, default=0.08, help="standard deviation of the points (%(default)s)")
    given = parser.parse_args(arguments)
    setting = (given.steps, given.points, given.noise)
    tuned = [(method, strength) for method in METHODS for strength in method.strengths if len(method.strengths) > 1]
    bar = tqdm(total=len(tuned) * given.tuning_seeds + len(METHODS) * given.seeds, unit="network", file=sys.stderr)
    validation = two_spirals(4000, noise=given.noise, seed=derive_seed("validation"))
    chosen = {method.name: method.strengths[0] for method in METHODS}
    best: dict[str, float] = {}
    for method, strength in tuned:
        scores = []
        for seed in range(1000, 1000 + given.tuning_seeds):
            scores.append(accuracy(train(method, strength, seed, *setting), *validation))
            bar.update()
        if np.mean(scores) > best.get(method.name, -1.0):
            best[method.name], chosen[method.name] = float(np.mean(scores)), strength
    found: dict[str, list[dict[str, float]]] = {}
    shown: dict[str, nn.Module] = {}
    for method in METHODS:
        for seed in range(given.seeds):
            network = train(method, chosen[method.name], seed, *setting)
            shown.setdefault(method.name, network)
            found.setdefault(method.name, []).append(measures(network, given.noise, seed))
            bar.update()
    bar.close()
    given.output.parent.mkdir(parents=True, exist_ok=True)
    draw(shown, {name: runs[0] for name, runs in found.items()}, given.noise, given.points, 0, given.output)
    with given.output.with_suffix(".csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["method", "strength", "seed", *MEASURES])
        for name, runs in found.items():
            rows.writerows([name, chosen[name], seed, *run.values()] for seed, run in enumerate(runs))
    print(table(found, chosen))
    print(f"picture: {given.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
