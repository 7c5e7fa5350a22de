"""Small folders and zips of images."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"

MakeImages = Callable[..., Path]


def write_image(path: Path, width: int, height: int, seed: int, mode: str = "RGB") -> None:
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode).save(path)


def zip_folder(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        # Reversed: the order of the entries must not matter.
        for path in sorted(folder.rglob("*"), reverse=True):
            archive.write(path, path.relative_to(folder))
    return target


@pytest.fixture
def make_images(tmp_path: Path) -> MakeImages:
    """Write random PNGs at the given relative paths and return their root."""

    def make(*names: str, width: int = 32, height: int = 32, root: str = "images", mode: str = "RGB") -> Path:
        for seed, name in enumerate(names):
            write_image(tmp_path / root / name, width, height, seed, mode)
        return tmp_path / root

    return make


@pytest.fixture
def classes(make_images: MakeImages) -> Path:
    """CIFAR-like: train/ with two classes of three, test/ with two of one."""
    train = [f"train/{name}/{i:04}.png" for name in ("cat", "dog") for i in range(3)]
    return make_images(*train, "test/cat/0000.png", "test/dog/0000.png")


@pytest.fixture
def shared_zip() -> Callable[[str], Path]:
    """The path of a zip of real images; skips where it isn't there."""

    def find(name: str) -> Path:
        if not (SHARED / name).is_file():
            pytest.skip(f"{SHARED / name} is not there")
        return SHARED / name

    return find


@pytest.fixture
def zipped(tmp_path: Path) -> Callable[[Path], Path]:
    """Zip a folder's content and return the zip."""
    return lambda folder: zip_folder(folder, tmp_path / f"{folder.name}.zip")
