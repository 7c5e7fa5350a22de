"""Images per second of the image store and of torchvision with a DataLoader: ``python -m benchmarks.input_pipeline``.

Both flip and crop images of CIFAR-10's size and return float batches in [-1, 1]. As torchvision's CIFAR-10, the peer
makes PIL images from an array in memory. ``--device cuda`` includes the copy to the GPU, and also times a store on the
GPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.timing import Variant, measure, parser, report, rows_of, synchronised
from cs_gan.data import ImageStore


class Pictures(Dataset[Tensor]):
    """As ``torchvision.datasets.CIFAR10``: makes a PIL image for each index and applies the transforms."""

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
    """The loader's batches, epoch after epoch."""
    while True:
        yield from loader


def drawn(store: ImageStore, size: int, **how: bool | int) -> Iterator[Tensor]:
    """Random batches of the store."""
    for draw in itertools.count():
        yield store.batch(torch.randint(len(store), (size,)), augmentation=(0, draw), **how)  # type: ignore[arg-type]


def taking(stream: Iterator[Tensor], batches: int, device: str) -> Variant:
    """Move this number of batches to the device."""

    def run() -> None:
        for batch in itertools.islice(stream, batches):
            batch.to(device, non_blocking=True)

    return synchronised(run, device)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    words = parser(__doc__, "python -m benchmarks.input_pipeline")
    words.add_argument("--batch", type=int, default=64)
    words.add_argument("--images", type=int, default=10_000)
    words.add_argument("--batches", type=int, default=30, help="batches in a round")
    words.add_argument("--workers", type=int, nargs="*", default=[0, 2], help="of the DataLoader")
    options = words.parse_args(arguments)
    if options.toy:
        options.images, options.batches, options.repeats, options.workers = 100, 2, 1, [0]
    images = torch.randint(256, (options.images, 3, 32, 32), dtype=torch.uint8)
    store, size, on_gpu = ImageStore(images, None, "random", "random"), options.batch, options.device == "cuda"
    streams = {
        f"torchvision and DataLoader, {workers} workers": endless(
            DataLoader(
                Pictures(images), size, shuffle=True, drop_last=True, num_workers=workers, pin_memory=on_gpu,
                persistent_workers=workers > 0,
            )
        )
        for workers in options.workers
    }  # fmt: skip
    streams["the store, flip and crop"] = drawn(store, size, flip=True, crop=4)
    streams["the store, flip, crop and dequantisation"] = drawn(store, size, flip=True, crop=4, dequantize=True)
    if on_gpu:
        there = ImageStore(images.cuda(), None, "random", "random")
        streams["the store on the GPU, flip and crop"] = drawn(there, size, flip=True, crop=4)
    variants = {name: taking(stream, options.batches, options.device) for name, stream in streams.items()}
    timings = measure(variants, options.repeats)
    first = next(iter(timings))
    count = options.batch * options.batches
    speeds = {name: round(count / timing.median) for name, timing in timings.items()}
    ratio = timings[first].relative_to(timings["the store, flip and crop"]).median
    report(
        f"{count} images",
        rows_of(timings),
        options.device,
        options.json,
        images_per_second=speeds,
        times_torchvision=ratio,
    )


if __name__ == "__main__":
    main()
