"""The pictures of the method, drawn from the code itself into docs/pictures/: ``python docs/draw.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.interpolate import CubicSpline
from sklearn.datasets import load_digits
from torch import Tensor, nn

from cs_gan import SplineCode

PICTURES = Path(__file__).parent / "pictures"
DATA, CODED = "#1f4e9c", "#c8501e"


def rough_and_smooth(code: SplineCode) -> Figure:
    """What the penalty measures: a smooth and a rough block on the same batch, and both interpolated back."""

    def smooth(x: Tensor) -> Tensor:
        return torch.tanh(2 * x + 0.3)

    def rough(x: Tensor) -> Tensor:
        return smooth(x) + 0.45 * torch.sin(14 * x)

    x = torch.from_numpy(code.alpha.copy())[:, None]  # (K, 1): a batch in order, so that the picture has one axis
    coded, line = code.encode(x), torch.linspace(-1, 1, 400, dtype=torch.float64)[:, None]
    figure = Figure(figsize=(9, 3.3), layout="constrained")
    for axes, block in zip(figure.subplots(1, 2, sharey=True), (smooth, rough), strict=True):
        outputs, plain = block(coded), block(x)
        decoded = code.decode(outputs)
        back = CubicSpline(code.beta[::-1], outputs.flatten().numpy()[::-1], bc_type="natural")
        axes.plot(line, block(line), color="0.7", lw=2, label="the block")
        axes.plot(line, back(line.numpy()), "--", color=CODED, lw=1, label="interpolated back")
        axes.vlines(x, plain, decoded, color="#b3001b", lw=2.5, label="difference")
        axes.plot(coded, outputs, "s", color=CODED, ms=4, label="run on coded samples")
        axes.plot(x, plain, "o", color=DATA, ms=6, label="run on the samples")
        penalty = (decoded - plain).square().mean().item()
        axes.set_title(f"a {block.__name__} block: penalty {penalty:.2g}", fontsize=11)
        axes.set(xlabel="sample", xticks=[], yticks=[])
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(-1.75, 1.6)
    figure.axes[0].set_ylabel("output")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    handles, labels = handles[-1:] + handles[:-1], labels[-1:] + labels[:-1]  # what is given comes first
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def nodes(code: SplineCode) -> Figure:
    """Both families of nodes as what they are: points evenly spread on a half circle, seen from above."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    angles = np.linspace(0, np.pi, 200)
    axes.plot(np.cos(angles), np.sin(angles), color="0.8")
    for points, colour, label, below in (
        (code.alpha, DATA, f"data nodes α, K = {code.K}", -0.12),
        (code.beta, CODED, f"coded nodes β, N = {code.N}", -0.24),
    ):
        heights = np.sqrt(np.clip(1 - points**2, 0, None))
        axes.vlines(points, below, heights, color=colour, alpha=0.25, lw=1)
        axes.plot(points, heights, "o", color=colour, ms=4)
        axes.plot(points, np.full_like(points, below), "o", color=colour, label=label)
    axes.set_aspect("equal")
    axes.set(xlim=(-1.1, 1.1), ylim=(-0.34, 1.08), yticks=[], xticks=[-1, -0.5, 0, 0.5, 1])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.62), framealpha=1, edgecolor="none")
    return figure


def matrices(code: SplineCode) -> Figure:
    """E, D and D E as they are: a band of positive weights with small negative ones beside it."""
    encoder, decoder = code.encoder, code.decoder
    figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    shown = (
        (encoder, "E: encode", "coded sample n", "data sample k"),
        (decoder, "D: decode", "decoded output k", "coded output n"),
        (decoder @ encoder, "D E: nearly I", "decoded output k", "data sample k"),
    )
    axes = figure.subplots(1, 3, width_ratios=[code.K, code.N, code.K])
    for one, (matrix, title, rows, columns) in zip(axes, shown, strict=True):
        picture = one.imshow(matrix, cmap="RdBu", vmin=-1, vmax=1)
        one.set(title=f"{title}  ({matrix.shape[0]}, {matrix.shape[1]})", ylabel=rows, xlabel=columns)
        one.set(xticks=[], yticks=[])
    figure.colorbar(picture, ax=axes, shrink=0.8, label="weight")
    return figure


def coded_digits(code: SplineCode) -> Figure:
    """A batch of real images, its coded samples, and what decoding makes of them with no block between."""
    images = torch.from_numpy(load_digits().images[: code.K]).float() / 16  # (K, 8, 8) in [0, 1]
    coded = code.encode(images)
    decoded = code.decode(coded)
    rows = (
        (images, code.alpha, "x: the batch", DATA),
        (coded, code.beta, "E x: coded samples", CODED),
        (decoded, code.alpha, "D E x: decoded", DATA),
    )
    figure = Figure(figsize=(9.5, 3.1), layout="constrained")
    for axes, (row, places, title, colour) in zip(figure.subplots(3, 1), rows, strict=True):
        _strip(axes, row, places, colour, half=0.9 / code.N)
        axes.set_title(title, loc="left", fontsize=9, color=colour)
    return figure


def _strip(axes: Axes, images: Tensor, places: np.ndarray, colour: str, half: float) -> None:
    """Images side by side in the order of their nodes, spread evenly by angle as the nodes are."""
    for image, place in zip(images, places, strict=True):
        x = 1 - 2 * np.arccos(place) / np.pi
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=1, extent=(x - half, x + half, -half, half))
        axes.plot([x - half, x + half, x + half, x - half, x - half], [-half, -half, half, half, -half], color=colour)
    axes.set(xlim=(1 + 1.1 * half, -1 - 1.1 * half), ylim=(-1.1 * half, 1.1 * half), aspect="equal")
    axes.axis("off")


def decoding_error(K: int = 16, seeds: int = 8) -> Figure:
    """|decoded - plain| of a smooth network against N, with the slopes that are said of it."""
    # Even: where N - 1 is a multiple of 2 K, the data nodes are coded nodes and the error is exactly 0.
    sizes = 2 * np.geomspace(K / 2, 32 * K, 19).round().astype(int)
    squares = np.zeros(len(sizes))
    for seed in range(seeds):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 4)).double().requires_grad_(False)
        x = torch.randn(K, 8, dtype=torch.float64)
        for i, N in enumerate(sizes):
            code = SplineCode(K, int(N))
            squares[i] += (code.decode(net(code.encode(x))) - net(x)).square().mean().item() / seeds
    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    axes = figure.subplots()
    ratio = sizes / K
    anchor = len(sizes) // 2  # the lines have the slope that is claimed, and pass through one measured point
    for values, power, label, colour in (
        (np.sqrt(squares), 3, "root mean square error", DATA),
        (squares, 6, "mean square error: the penalty", CODED),
    ):
        axes.loglog(ratio, values, "o-", ms=4, color=colour, label=label)
        line = values[anchor] * (ratio / ratio[anchor]) ** -power
        axes.loglog(ratio[anchor - 6 :], line[anchor - 6 :], "--", color="0.4", lw=1)
        axes.annotate(f"N⁻{'³⁶'[power == 6]}", (ratio[-1], line[-1]), xytext=(4, 0), textcoords="offset points")
    axes.axvspan(1, 1.5, color="0.9", label="N from K to 1.5 K")
    axes.set(xlabel="N / K", ylabel="error", xlim=(0.9, 95))
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="upper right")
    return figure


def main() -> None:
    """Draw all; a small palette keeps each file far below 100 KB."""
    PICTURES.mkdir(exist_ok=True)
    pictures = {
        "rough_and_smooth": rough_and_smooth(SplineCode(8, 12)),
        "nodes": nodes(SplineCode(8, 12)),
        "matrices": matrices(SplineCode(16, 24)),
        "coded_digits": coded_digits(SplineCode(8, 12)),
        "decoding_error": decoding_error(),
    }
    for name, figure in pictures.items():
        # Without the version of matplotlib in it, the same picture is the same file.
        figure.savefig(PICTURES / f"{name}.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
