"""Fashion-MNIST from IDX files: where they are looked for, how they become images, what is refused."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision.datasets import FashionMNIST

from cs_gan.data import datasets, idx, load_images
from cs_gan.errors import DataError

Pixels = npt.NDArray[np.uint8]
MakeImages = Callable[..., Path]
LABELS = {"train": [3, 9, 0, 3, 1], "t10k": [7, 2]}


def idx_bytes(array: Pixels) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_fashion(folder: Path, *, packed: bool) -> dict[str, Pixels]:
    """The four files with random images; the images are returned."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = {prefix: rng.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8) for prefix, labels in LABELS.items()}
    for prefix, labels in LABELS.items():
        for name, array in [("images-idx3", images[prefix]), ("labels-idx1", np.array(labels, np.uint8))]:
            content = idx_bytes(array)
            path = folder / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    return images


@pytest.fixture
def not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Debian's place, without its package."""
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "debian"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layout", ["", "FashionMNIST/raw", "raw"])
def test_images_lie_in_a_black_border_and_stay_exact(packed: bool, layout: str, tmp_path: Path) -> None:
    images = write_fashion(tmp_path / layout, packed=packed)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        store = load_images("fashion_mnist", tmp_path, split=split)
        np.testing.assert_array_equal(store.images[:, 0], np.pad(images[prefix], ((0, 0), (2, 2), (2, 2))))
        assert store.labels is not None
        assert store.labels.tolist() == LABELS[prefix]
        assert store.class_names[9] == "Ankle boot"
    assert store.description.startswith("fashion_mnist (test): 2 images, 1x32x32")
    assert store.preparation == "border 2 black, grey"


def test_other_sizes_are_resized_without_a_border_and_grey_repeats_to_rgb(tmp_path: Path) -> None:
    images = write_fashion(tmp_path / "raw", packed=True)["train"]
    plain = load_images("fashion_mnist", tmp_path, image_size=28).images
    np.testing.assert_array_equal(plain[:, 0], images)
    half = np.asarray(Image.fromarray(images[0]).resize((14, 14), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(load_images("fashion_mnist", tmp_path, image_size=14).images[0, 0], half)
    colour = load_images("fashion_mnist", tmp_path, image_size=28, channels=3).images
    assert torch.equal(colour, plain.expand(-1, 3, -1, -1))


@pytest.mark.usefixtures("not_installed")
def test_without_a_root_the_working_directory_comes_before_debian(tmp_path: Path, not_installed: Path) -> None:
    write_fashion(not_installed, packed=True)
    assert len(load_images("fashion_mnist")) == 5
    write_fashion(tmp_path / "data" / "FashionMNIST" / "raw", packed=False)
    (not_installed / "train-images-idx3-ubyte.gz").write_bytes(b"not read")
    assert len(load_images("fashion_mnist")) == 5


@pytest.mark.usefixtures("not_installed")
def test_a_download_is_read_where_torchvision_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: Any) -> None:
        write_fashion(Path(self.raw_folder), packed=False)

    monkeypatch.setattr(FashionMNIST, "download", download)
    for root in (None, tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert len(load_images("fashion_mnist", root)) == 5
    assert (tmp_path / "data" / "FashionMNIST" / "raw").is_dir()


def test_a_folder_of_pictures_serves_too(make_images: MakeImages) -> None:
    root = make_images("train/bag/0.png", "train/coat/0.png", width=28, height=28, mode="L")
    store = load_images("fashion_mnist", root)
    assert store.images.shape == (2, 1, 32, 32)
    assert store.labels is not None
    assert store.labels.tolist() == [0, 1]


def test_there_is_no_third_split(tmp_path: Path) -> None:
    write_fashion(tmp_path / "raw", packed=True)
    with pytest.raises(DataError, match="fashion_mnist has no split 'valid'; it has train, test"):
        load_images("fashion_mnist", tmp_path, split="valid")


IMAGES, SOME_LABELS = idx_bytes(np.zeros((5, 28, 28), np.uint8)), idx_bytes(np.zeros(5, np.uint8))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("images-idx3", SOME_LABELS, "images-idx3-ubyte isn't an IDX file of bytes in 3 dimensions"),
        ("labels-idx1", IMAGES, r"labels-idx1-ubyte isn't .* starts with '00 00 08 03', not '00 00 08 01'"),
        ("labels-idx1", b"", r"labels-idx1-ubyte isn't an IDX file of bytes in 1 dimensions: it starts with ''"),
        ("images-idx3", b"\x89PNG\r\n", "images-idx3-ubyte isn't an IDX file"),
        ("images-idx3", IMAGES[:10], r"images-idx3-ubyte states an impossible size, 5\. Get it again"),
        ("images-idx3", IMAGES[:-1], r"images-idx3-ubyte is truncated: it states 3,920 bytes and has 3,919"),
        ("labels-idx1", SOME_LABELS + b"x", "labels-idx1-ubyte has bytes after its data"),
        ("images-idx3", struct.pack(">4B3I", 0, 0, 8, 3, 0, 28, 28), "states an impossible size, 0x28x28"),
        ("images-idx3", struct.pack(">4B3I", 0, 0, 8, 3, 2**31, 2**31, 2**31) + b"x", "states an impossible size"),
        ("labels-idx1", idx_bytes(np.zeros(4, np.uint8)), r"images-.*holds 5 images, but .*labels-.* 4 labels"),
        ("images-idx3", idx_bytes(np.zeros((5, 8, 8), np.uint8)), "is 8x8, but this data set's are 28x28"),
        ("labels-idx1", None, r"train-labels-idx1-ubyte is missing, and so is train-labels-idx1-ubyte\.gz"),
    ],
)
def test_a_damaged_file_is_named(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    write_fashion(tmp_path / "raw", packed=False)
    path = tmp_path / "raw" / f"train-{name}-ubyte"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_images("fashion_mnist", tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "unpacked"])
def test_a_damaged_packed_file_is_named(damage: str, tmp_path: Path) -> None:
    write_fashion(tmp_path / "raw", packed=True)
    path = tmp_path / "raw" / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    broken = {"cut": whole[:-500], "flipped": whole[:2000] + bytes(20) + whole[2020:], "unpacked": IMAGES}
    path.write_bytes(broken[damage])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz (can't be read|is truncated)"):
        load_images("fashion_mnist", tmp_path)


def test_a_packed_file_is_unpacked_no_further_than_it_states(tmp_path: Path) -> None:
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(SOME_LABELS + bytes(2**24)))
    with pytest.raises(DataError, match="states 5 bytes and has 6"):
        idx.read_idx(path, 1)


@pytest.mark.skipif(idx.find_idx(datasets.DEBIAN_FASHION_MNIST) is None, reason="dataset-fashion-mnist isn't installed")
def test_debians_files_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = datasets.DEBIAN_FASHION_MNIST
    labels = idx.read_idx(folder / "train-labels-idx1-ubyte.gz", 1)
    assert np.bincount(labels).tolist() == [6000] * 10
    store = load_images("fashion_mnist", split="test", limit=100)
    images = idx.read_idx(folder / "t10k-images-idx3-ubyte.gz", 3)
    assert images.shape == (10_000, 28, 28)
    np.testing.assert_array_equal(store.images[:, 0, 2:-2, 2:-2], images[::100])
    # Its authors' first test image is an ankle boot, class 9.
    assert store.labels is not None
    assert store.labels[0] == 9


def test_files_in_data_itself_are_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST's have the same names: its digits once became T-shirts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "not installed")
    write_fashion(tmp_path / "data", packed=True)
    with monkeypatch.context() as offline:
        offline.setattr("torchvision.datasets.FashionMNIST", refuse_download)
        with pytest.raises(DataError, match="no network"):
            load_images("fashion_mnist")
    images = write_fashion(tmp_path / "data" / "FashionMNIST" / "raw", packed=True)
    np.testing.assert_array_equal(load_images("fashion_mnist").images[:, 0, 2:-2, 2:-2], images["train"])
    # A folder that is named has the files that its owner says.
    assert load_images("fashion_mnist", tmp_path / "data").images.shape[0] == 5


def refuse_download(*_: Any, **__: Any) -> None:
    raise DataError("no network")
