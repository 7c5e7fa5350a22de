"""Seconds to score images: our Evaluator against torch-fidelity itself: ``python -m benchmarks.scoring``.

The same extractor, images and scores (distance, Inception Score, KID, precision and recall). Both start cold in each
round: features of the real images are read anew. Ours then keeps them, which is told apart as *again*.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch_fidelity
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.timing import Row, measure, report, synchronised
from cs_gan.metrics import EXTRACTORS, Evaluator
from cs_gan.metrics.images import generated_images


class Replay(nn.Module):
    """A generator whose images are given: uint8 (n, 3, H, W), in order, from the start whenever it was through."""

    latent_dim = 4

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images, self.at = images, 0

    def forward(self, z: Tensor) -> Tensor:  # (B, 4) -> (B, 3, H, W) in [-1, 1]
        """The next ones."""
        chosen = self.images[self.at : self.at + len(z)]
        self.at = (self.at + len(z)) % len(self.images)
        return chosen.to(z.device) / 127.5 - 1


class Images(Dataset[Tensor]):
    """uint8 images, one by one, as torch-fidelity wants them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--extractor", choices=list(EXTRACTORS), default="efficientnet_lite0")
    parser.add_argument("--images", type=int, default=1000, help="generated, and as many real ones")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--toy", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.toy:
        options.images, options.repeats = 10, 1
    torch.manual_seed(0)
    # Blurred noise, so that images have something in common.
    pixels = nn.functional.interpolate(torch.rand(2 * options.images, 3, 6, 6), size=32, mode="bilinear")
    generated, real = (pixels * 255).to(torch.uint8).chunk(2)
    spec = EXTRACTORS[options.extractor]
    warm = _evaluator(options, real, Path(tempfile.mkdtemp()))
    first = warm(Replay(generated))
    made = torch.cat(list(generated_images(Replay(generated), len(generated), options.batch, 0, torch.device("cpu"))))
    theirs = partial(_fidelity, options, spec.registered_name, made, real, first.provenance)
    variants: dict[str, Callable[[], object]] = {
        "torch-fidelity": theirs,
        "ours, cold": lambda: _evaluator(options, real, Path(tempfile.mkdtemp()))(Replay(generated)),
        "ours, again": lambda: warm(Replay(generated)),
    }
    timings = measure({name: synchronised(run, options.device) for name, run in variants.items()}, options.repeats)
    base = timings["torch-fidelity"]
    rows = [Row(name, timing, None if timing is base else base) for name, timing in timings.items()]
    scores = theirs()
    pairs = {spec.distance: "frechet_inception_distance", spec.kernel_distance: "kernel_inception_distance_mean"}
    difference = max(abs(first.values[ours] - scores[name]) / abs(scores[name]) for ours, name in pairs.items())
    ratio = timings["ours, cold"].relative_to(base).median
    title = f"{options.images} images against as many, {options.extractor}"
    figures = {"ratio_to_torch_fidelity": ratio, "largest_relative_difference": difference}
    report(title, rows, options.device, options.json, **figures)


def _evaluator(options: argparse.Namespace, real: Tensor, cache: Path) -> Evaluator:
    shared = {"num_samples": options.images, "batch_size": options.batch, "device": options.device}
    return Evaluator(options.extractor, real, reference_about={}, cache_dir=cache, **shared)


def _fidelity(
    options: argparse.Namespace, extractor: str, made: Tensor, real: Tensor, provenance: dict[str, object]
) -> dict[str, float]:
    kid = provenance["kid"]
    assert isinstance(kid, dict)
    found: dict[str, float] = torch_fidelity.calculate_metrics(
        input1=Images(made),
        input2=Images(real),
        feature_extractor=extractor,
        feature_extractor_weights_path=provenance["weights"],
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        isc_splits=provenance["is_splits"],
        kid_subset_size=kid["subset_size"],
        batch_size=options.batch,
        cuda=options.device == "cuda",
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    return found


if __name__ == "__main__":
    main()
