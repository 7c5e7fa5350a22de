"""Time to score images with our Evaluator and with torch-fidelity: ``python -m benchmarks.scoring``.

Both use the same extractor, images and scores (distance, Inception Score, KID, precision and recall). In each round
both start without stored features of the real images. *Again* is our time with stored features.

``--extractor inception`` runs on random weights where the real ones are missing, and says so: the speed is the same.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch_fidelity
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.random_inception import random_weights
from benchmarks.timing import Clock, Timing, clock_for, measure, parser, report, rows_of, synchronised
from cs_gan.metrics import EXTRACTORS, Evaluator, inception, register_extractors
from cs_gan.metrics.images import generated_images

THEIRS = {"inception": "inception-v3-compat"}
"""torch-fidelity's own extractors, where ours is another class."""


class Replay(nn.Module):
    """A generator that returns given images, uint8 (n, 3, H, W), in order and repeatedly."""

    latent_dim = 4

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images, self.at = images, 0

    def forward(self, z: Tensor) -> Tensor:  # (B, 4) -> (B, 3, H, W) in [-1, 1]
        """The next B images."""
        chosen = self.images[self.at : self.at + len(z)]
        self.at = (self.at + len(z)) % len(self.images)
        return chosen.to(z.device) / 127.5 - 1


class Images(Dataset[Tensor]):
    """uint8 images one by one, as torch-fidelity needs them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    words = parser(__doc__, "python -m benchmarks.scoring", repeats=3)
    words.add_argument("--extractor", choices=list(EXTRACTORS), default="efficientnet_lite0")
    words.add_argument("--images", type=int, default=1000, help="number of generated and of real images")
    words.add_argument("--batch", type=int, default=64)
    words.add_argument("--once", action="store_true", help="one round without a warm-up, for a busy machine")
    options = words.parse_args(arguments)
    if options.toy:
        options.images, options.repeats = 10, 1
    with _weights(options.extractor) as note:
        _compare(options, note)


@contextmanager
def _weights(extractor: str) -> Iterator[str]:
    """A context in which the extractor has weights, and what the title says of them."""
    if extractor != "inception" or (Path(torch.hub.get_dir()) / "checkpoints" / inception.FILE_NAME).is_file():
        yield ""
        return
    with random_weights():
        yield " on RANDOM weights (the real ones are missing; the scores mean nothing, the times do)"


def _compare(options: argparse.Namespace, note: str) -> None:
    torch.manual_seed(0)
    # Blurred noise, so that the images are similar.
    pixels = nn.functional.interpolate(torch.rand(2 * options.images, 3, 6, 6), size=32, mode="bilinear")
    generated, real = (pixels * 255).to(torch.uint8).chunk(2)
    spec = EXTRACTORS[options.extractor]
    generated_uint8 = torch.cat(
        list(generated_images(Replay(generated), len(generated), options.batch, 0, torch.device("cpu")))
    )
    kept: dict[str, Any] = {}

    def cold() -> None:
        kept["evaluator"] = _evaluator(options, real, Path(tempfile.mkdtemp()))
        kept["ours"] = kept["evaluator"](Replay(generated))

    def fidelity() -> None:
        extractor = THEIRS.get(spec.name, spec.registered_name)
        kept["theirs"] = _fidelity(options, extractor, generated_uint8, real, kept["ours"].provenance)

    variants: dict[str, Callable[[], object]] = {
        "ours, cold": cold,
        "torch-fidelity": fidelity,
        "ours, again": lambda: kept["evaluator"](Replay(generated)),
    }
    calls = {name: synchronised(run, options.device) for name, run in variants.items()}
    clock = clock_for(options.device)
    timings = once(calls, clock) if options.once else measure(calls, options.repeats, clock)
    first, scores = kept["ours"], kept["theirs"]
    pairs = {"FD": "frechet_inception_distance", "KID": "kernel_inception_distance_mean"}
    differences = {
        ours: abs(first.values[spec.named(ours)] - scores[name]) / abs(scores[name]) for ours, name in pairs.items()
    }
    ratio = timings["ours, cold"].relative_to(timings["torch-fidelity"]).median
    title = f"{options.images} images against as many, {options.extractor}{note}"
    figures = {"ratio_to_torch_fidelity": ratio, "relative_difference_FD": differences["FD"]}
    figures["largest_relative_difference"] = max(differences.values())
    report(title, rows_of(timings, "torch-fidelity"), options.device, options.json, **figures)


def once(variants: Mapping[str, Callable[[], object]], clock: Clock) -> dict[str, Timing]:
    """One call of each, the first there is."""
    timings = {}
    for name, run in variants.items():
        start = clock()
        run()
        timings[name] = Timing((clock() - start,))
    return timings


def _evaluator(options: argparse.Namespace, real: Tensor, cache: Path) -> Evaluator:
    shared = {"num_samples": options.images, "batch_size": options.batch, "device": options.device}
    return Evaluator(options.extractor, real, reference_about={}, cache_dir=cache, **shared)


def _fidelity(
    options: argparse.Namespace, extractor: str, generated_uint8: Tensor, real: Tensor, provenance: dict[str, object]
) -> dict[str, float]:
    kid = provenance["kid"]
    assert isinstance(kid, dict)
    register_extractors()
    scores: dict[str, float] = torch_fidelity.calculate_metrics(
        input1=Images(generated_uint8),
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
    return scores


if __name__ == "__main__":
    main()
