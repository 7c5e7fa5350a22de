"""Seconds and memory of decoding many small images from a folder and a zip: ``python -m benchmarks.image_folders``.

It writes the images (noise as PNG) to a temporary folder in ``$TMPDIR``, and loads them there and from a zip of them,
each in a process of its own. "Peak" is the most main memory that this process had at any moment, libraries included.
The files were just written, so they are read from the system's cache and not from the disk.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.timing import machine, parser
from cs_gan.data import load_images

CLASSES = 10
VARIED = 1000  # different images; encoding a new one for each file would take longer than all the reading


def write(folder: Path, archive: Path, images: int, size: int) -> None:
    """The same ``images`` in class folders and, stored without compression, in a zip."""
    pixels = np.random.default_rng(0).integers(0, 256, (VARIED, size, size, 3), dtype=np.uint8)
    first = folder.parent / "first.png"
    contents = []
    for each in pixels[: min(VARIED, images)]:
        Image.fromarray(each).save(first)
        contents.append(first.read_bytes())
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as packed:
        for i in range(images):
            name, content = f"class{i % CLASSES}/{i:07}.png", contents[i % len(contents)]
            (folder / name).write_bytes(content)
            packed.writestr(name, content)


def load(root: Path) -> dict[str, float]:
    """Load all images of ``root``: seconds, MiB of the images, and the process's MiB before and at its peak."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    start = time.perf_counter()
    store = load_images("folder", root)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {
        "seconds": seconds,
        "images": len(store),
        "MiB": store.images.nbytes / 2**20,
        "before": before,
        "peak": peak,
    }


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    words = parser(__doc__, "python -m benchmarks.image_folders", repeats=1)
    words.add_argument("--images", type=int, default=200_000)
    words.add_argument("--size", type=int, default=32, help="side in pixels")
    options = words.parse_args(arguments)
    if options.toy:
        options.images, options.size = 50, 8
    found: dict[str, list[dict[str, float]]] = {"folder": [], "zip": []}
    with tempfile.TemporaryDirectory() as place:
        folder, archive = Path(place) / "images", Path(place) / "images.zip"
        write(folder, archive, options.images, options.size)
        for _ in range(options.repeats):
            for name, root in (("folder", folder), ("zip", archive)):
                # A new process each, because a process's peak never falls.
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    found[name].append(pool.submit(load, root).result())
    print(f"{options.images:,} images of {options.size}x{options.size}\n{machine()}")
    for name, rounds in found.items():
        for each in rounds:
            speed = f"{each['seconds']:.1f} s, {each['images'] / each['seconds']:,.0f} images per second"
            memory = f"{each['peak']:,.0f} MiB at its peak ({each['before']:,.0f} before)"
            print(f"{name}: {speed}; the images take {each['MiB']:,.0f} MiB, the process {memory}")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), **found}, indent=2))


if __name__ == "__main__":
    main()
