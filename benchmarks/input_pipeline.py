"""Images a second: the store against torchvision and a DataLoader: ``python -m benchmarks.input_pipeline``.

Both flip and crop images of CIFAR-10's size and give float batches in [-1, 1]. torchvision reads PIL images from
memory, as its CIFAR-10 does. ``--device cuda`` includes the way to the GPU, and the store that lies there.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.timing import Row, measure, report, synchronised
from cs_gan.data import ImageStore


class Pictures(Dataset[Tensor]):
    """As ``torchvision.datasets.CIFAR10``: an array in memory, a PIL image and the transforms for each index."""

    def __init__(self, images: Tensor) -> None:
        self.pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self.transform = transforms.Compose([*steps, transforms.Normalize((0.5,) * 3, (0.5,) * 3)])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        batch: Tensor = self.transform(Image.fromarray(self.pixels[index]))
        return batch


def endless(loader: DataLoader[Tensor]) -> Iterator[Tensor]:
    """Epoch after epoch."""
    while True:
        yield from loader


def from_store(store: ImageStore, size: int, batches: int, device: str, **how: bool | int) -> Callable[[], None]:
    """So many batches of the store, on the device."""
    draws = itertools.count()

    def run() -> None:
        for draw in itertools.islice(draws, batches):
            rows = torch.randint(len(store), (size,))
            store.batch(rows, augmentation=(0, draw), **how).to(device, non_blocking=True)  # type: ignore[arg-type]

    return run


def from_loader(stream: Iterator[Tensor], batches: int, device: str) -> Callable[[], None]:
    """So many batches of the loader, on the device."""

    def run() -> None:
        for batch in itertools.islice(stream, batches):
            batch.to(device, non_blocking=True)

    return run


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.input_pipeline", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batches", type=int, default=30, help="in a round")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2], help="of the DataLoader")
    parser.add_argument("--toy", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.toy:
        options.images, options.batches, options.repeats, options.workers = 100, 2, 1, [0]
    images = torch.randint(256, (options.images, 3, 32, 32), dtype=torch.uint8)
    store, shared = ImageStore(images, None, "made up", "made up"), (options.batch, options.batches, options.device)
    peers = {
        workers: from_loader(
            endless(
                DataLoader(
                    Pictures(images),
                    options.batch,
                    shuffle=True,
                    drop_last=True,
                    num_workers=workers,
                    pin_memory=options.device == "cuda",
                    persistent_workers=workers > 0,
                )
            ),
            options.batches,
            options.device,
        )
        for workers in options.workers
    }
    variants = {f"torchvision and DataLoader, {workers} workers": run for workers, run in peers.items()}
    variants["the store, flip and crop"] = from_store(store, *shared, flip=True, crop=4)
    variants["the store, flip, crop and dequantisation"] = from_store(
        store, *shared, flip=True, crop=4, dequantize=True
    )
    if options.device == "cuda":
        there = ImageStore(images.cuda(), None, "made up", "made up")
        variants["the store on the GPU, flip and crop"] = from_store(there, *shared, flip=True, crop=4)
    timings = measure({name: synchronised(run, options.device) for name, run in variants.items()}, options.repeats)
    first = next(iter(timings))
    rows = [Row(name, timing, None if name == first else timings[first]) for name, timing in timings.items()]
    count = options.batch * options.batches
    speeds = {name: round(count / timing.median) for name, timing in timings.items()}
    ratio = timings[first].relative_to(timings["the store, flip and crop"]).median
    report(f"{count} images", rows, options.device, options.json, images_per_second=speeds, times_torchvision=ratio)


if __name__ == "__main__":
    main()
