"""MNIST, SVHN and STL-10 from the files that torchvision downloads, in the formats of their authors."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import MNIST, STL10, SVHN

from cs_gan.data import load_images
from cs_gan.data.store import ImageStore
from cs_gan.errors import DataError
from tests.data.packed import Pixels, png, random_images
from tests.data.test_fashion import LABELS, write_fashion

MakeImages = Callable[..., Path]


def labels_of(store: ImageStore) -> list[int]:
    assert store.labels is not None
    return store.labels.tolist()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_svhn(root: Path, split: str, labels: list[int], monkeypatch: pytest.MonkeyPatch) -> Pixels:
    """A .mat as the authors have it, (H, W, 3, n); torchvision checks sums, so it is told that of our file."""
    root.mkdir(parents=True, exist_ok=True)
    pixels = random_images(len(labels), 32, seed=len(labels))
    path = root / f"{split}_32x32.mat"
    savemat(path, {"X": pixels.transpose(1, 2, 3, 0), "y": np.array(labels, np.uint8)[:, None]})
    url, name, _ = SVHN.split_list[split]
    monkeypatch.setitem(SVHN.split_list, split, [url, name, md5(path)])
    return pixels


def write_stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Pixels]:
    """The .bin files as the authors have them: (n, 3, W, H), labels from 1."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    images = {split: random_images(n, 96, seed=n) for split, n in (("train", 3), ("test", 2), ("unlabeled", 4))}
    for split, pixels in images.items():
        (folder / f"{split}_X.bin").write_bytes(pixels.transpose(0, 3, 2, 1).tobytes())
    (folder / "train_y.bin").write_bytes(bytes([1, 10, 2]))
    (folder / "test_y.bin").write_bytes(bytes([3, 1]))
    (folder / "class_names.txt").write_text("airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n")
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(STL10, part, [[name, md5(folder / name)] for name, _ in getattr(STL10, part)])
    return images


@pytest.mark.parametrize("layout", ["", "MNIST/raw", "raw"])
def test_mnist_is_read_from_its_idx_files_in_a_black_border(layout: str, tmp_path: Path) -> None:
    images = write_fashion(tmp_path / layout, packed=True)
    store = load_images("mnist", tmp_path, split="test")
    np.testing.assert_array_equal(store.images[:, 0], np.pad(images["t10k"], ((0, 0), (2, 2), (2, 2))))
    assert labels_of(store) == LABELS["t10k"]
    assert store.class_names == tuple("0123456789")
    assert store.description.startswith("mnist (test): 2 images, 1x32x32")


def test_mnist_is_never_taken_from_fashion_mnists_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_fashion(tmp_path / "data" / "FashionMNIST" / "raw", packed=True)
    fetched: list[Path] = []

    def download(self: Any) -> None:
        fetched.append(Path(self.raw_folder))
        write_fashion(Path(self.raw_folder), packed=False)

    monkeypatch.setattr(MNIST, "download", download)
    for root in (None, "data"):
        assert len(load_images("mnist", root)) == 5
    assert fetched == [Path("data/MNIST/raw")]
    assert len(load_images("fashion_mnist")) == 5


def test_svhn_is_read_from_its_mat_files_and_its_label_10_is_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for split, labels in (("train", [10, 1, 9]), ("test", [10, 2]), ("extra", [4, 4, 4, 5])):
        pixels = write_svhn(tmp_path / "data", split, labels, monkeypatch)
        for root in (None, "data"):
            store = load_images("svhn", root, split=split)
            np.testing.assert_array_equal(store.images, pixels.transpose(0, 3, 1, 2))
            assert labels_of(store) == [label % 10 for label in labels]
    with pytest.raises(DataError, match="svhn has no split 'val'; it has train, test, extra"):
        load_images("svhn", split="val")


def test_svhns_missing_split_is_downloaded_beside_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svhn(tmp_path, "train", [1, 2], monkeypatch)

    def download(self: Any) -> None:
        write_svhn(Path(self.root), self.split, [3, 4, 5], monkeypatch)

    monkeypatch.setattr(SVHN, "download", download)
    assert labels_of(load_images("svhn", tmp_path, split="test")) == [3, 4, 5]


def test_stl10_is_read_from_its_binary_files_and_names_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = write_stl10(tmp_path / "data", monkeypatch)
    for root in (None, "data", "data/stl10_binary"):
        store = load_images("stl10", root)
        np.testing.assert_array_equal(store.images, images["train"].transpose(0, 3, 1, 2))
        assert labels_of(store) == [0, 9, 1]
        assert store.class_names[9] == "truck"
    assert labels_of(load_images("stl10", split="test", image_size=48)) == [2, 0]
    unlabeled = load_images("stl10", split="unlabeled")
    np.testing.assert_array_equal(unlabeled.images, images["unlabeled"].transpose(0, 3, 1, 2))
    assert unlabeled.labels is None


@pytest.mark.parametrize("name", ["mnist", "svhn", "stl10"])
def test_a_failed_download_says_how_to_get_the_files_by_hand(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object) -> None:
        raise OSError("no network")

    for dataset in (MNIST, SVHN, STL10):
        monkeypatch.setattr(dataset, "download", fail)
    with pytest.raises(DataError, match=rf"{name}'s files in .* couldn't be downloaded .*no network.* Get "):
        load_images(name, tmp_path)


@pytest.mark.parametrize("name", ["svhn", "stl10"])
def test_damaged_files_are_told_and_not_downloaded_over(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_svhn(tmp_path, "train", [1, 2], monkeypatch)
    write_stl10(tmp_path, monkeypatch)
    for dataset in (SVHN, STL10):
        monkeypatch.setattr(dataset, "download", lambda self: pytest.fail("tried to download"))
    for path in (tmp_path / "train_32x32.mat", tmp_path / "stl10_binary" / "train_X.bin"):
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=rf"{name}'s files in .* are damaged or incomplete"):
        load_images(name, tmp_path)


@pytest.mark.parametrize("name", ["mnist", "svhn", "stl10"])
def test_a_folder_of_pictures_serves_too(name: str, make_images: MakeImages, tmp_path: Path) -> None:
    size = {"mnist": 28, "svhn": 32, "stl10": 96}[name]
    root = make_images("train/3/0.png", "train/5/0.png", width=size, height=size)
    assert labels_of(load_images(name, root)) == [0, 1]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes(png(random_images(1, 40)[0]))
    with pytest.raises(DataError, match=f"is 40x40, but this data set's are {size}x{size}"):
        load_images(name, tmp_path / "other")
