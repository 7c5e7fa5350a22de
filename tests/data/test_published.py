"""Data sets as they are published: torchvision's layouts, downloads, and the real zips where they lie at hand."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100, CelebA, FashionMNIST

from cs_gan.data import datasets, load_images
from cs_gan.data.shifted import CIFAR10_CLASSES
from cs_gan.errors import DataError

MakeImages = Callable[..., Path]


def dump(path: Path, content: dict[str, Any]) -> list[str]:
    """A pickle, and its name and sum as torchvision lists them."""
    path.write_bytes(pickle.dumps(content))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """torchvision's layout with two images a batch; torchvision checks sums, so it is told those of our files."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    sums = [
        dump(folder / name, {"data": pixels[2 * i : 2 * i + 2].reshape(2, -1), "labels": [i, 9 - i]})
        for i, name in enumerate(names)
    ]
    meta = dump(folder / "batches.meta", {"label_names": [str(i) for i in range(10)]})
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta[1]})
    return pixels


def test_cifar10_in_torchvisions_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_cifar10(tmp_path / "data", monkeypatch)
    monkeypatch.chdir(tmp_path)
    for root in (None, tmp_path / "data", tmp_path / "data" / "cifar-10-batches-py"):
        train = load_images("cifar10", root)
        np.testing.assert_array_equal(train.images, pixels[:10])
        assert train.labels is not None
        assert train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
        assert train.class_names == tuple("0123456789")  # as this batches.meta has them
    np.testing.assert_array_equal(load_images("cifar10", split="test").images, pixels[10:])
    with pytest.raises(DataError, match="no split 'valid'; it has train, test"):
        load_images("cifar10", split="valid")


def test_damaged_cifar10_files_are_told_and_not_downloaded_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"cut")
    monkeypatch.setattr(CIFAR10, "download", lambda self: pytest.fail("tried to download"))
    with pytest.raises(DataError, match=r"damaged or incomplete.*cifar-10-python.tar.gz"):
        load_images("cifar10", tmp_path)


def test_cifar100_in_torchvisions_layout_has_its_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    rows = {"coarse_labels": [0] * 6, "fine_labels": [99, 1, 50, 2, 0, 98]}
    halves = {"train": slice(0, 4), "test": slice(4, 6)}
    for split, half in halves.items():
        part = {name: labels[half] for name, labels in rows.items()}
        listed = [dump(folder / split, {"data": pixels[half].reshape(-1, 3072), **part})]
        monkeypatch.setattr(CIFAR100, f"{split}_list", listed)
    meta = dump(folder / "meta", {"fine_label_names": [str(i) for i in range(100)]})
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": meta[1]})
    for root in (tmp_path, folder):
        for split, half in halves.items():
            store = load_images("cifar100", root, split=split)
            np.testing.assert_array_equal(store.images, pixels[half])
            assert store.labels is not None
            assert store.labels.tolist() == rows["fine_labels"][half]
            assert store.num_classes == 100
    assert store.description.startswith("cifar100 (test): 2 images, 3x32x32")


def test_cifar100_from_a_folder_numbers_its_classes(classes: Path) -> None:
    store = load_images("cifar100", classes)
    assert store.name == "cifar100"
    assert store.labels is not None
    assert store.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_celeba_in_torchvisions_layout(
    tmp_path: Path, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{i:06}.png" for i in range(8)]  # torchvision fails on a split of one image
    make_images(*[f"celeba/img_align_celeba/{name}" for name in names], width=178, height=218, root="")
    rows = {"list_eval_partition": "{} {}", "identity_CelebA": "{} 1"}
    for table in ("list_bbox_celeba", "list_landmarks_align_celeba", "list_attr_celeba"):
        rows[table] = "{} 1 1"
    files = []
    for table, row in rows.items():
        header = "" if table in ("list_eval_partition", "identity_CelebA") else "8\na b\n"
        path = tmp_path / "celeba" / f"{table}.txt"
        path.write_text(header + "".join(row.format(name, i % 3) + "\n" for i, name in enumerate(names)))
        files.append(("", hashlib.md5(path.read_bytes()).hexdigest(), path.name))
    monkeypatch.setattr(CelebA, "file_list", files)
    assert [len(load_images("celeba", tmp_path, split=s)) for s in ("train", "valid", "test", "all")] == [3, 3, 2, 8]
    every = load_images("celeba", tmp_path / "celeba" / "img_align_celeba", split="all").images
    assert torch.equal(load_images("celeba", tmp_path).images, every[[0, 3, 6]])


@pytest.mark.parametrize(
    ("name", "dataset"),
    [("cifar10", CIFAR10), ("cifar100", CIFAR100), ("fashion_mnist", FashionMNIST), ("celeba", CelebA)],
)
def test_a_failed_download_says_how_to_get_the_data(
    name: str, dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(dataset, "download", fail)
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for root in (None, "empty"):
        with pytest.raises(
            DataError, match=r"couldn't be downloaded \(OSError: no network\). (Get|Install) .*https://"
        ):
            load_images(name, root)


def test_real_cifar10_loads(shared_zip: Callable[[str], Path]) -> None:
    store = load_images("cifar10", shared_zip("cifar10_jpeg.zip"), split="test", limit=1000)
    assert store.images.shape == (1000, 3, 32, 32)
    assert store.labels is not None
    assert store.labels.bincount().tolist() == [100] * 10
    assert store.class_names == CIFAR10_CLASSES


def test_real_celeba_loads(shared_zip: Callable[[str], Path]) -> None:
    store = load_images("celeba", shared_zip("celeba_6k.zip"), limit=100)
    assert store.images.shape == (100, 3, 64, 64)
    assert 80 < store.images.float().mean() < 160


def test_real_tiny_imagenet_loads_as_a_folder_whose_validation_images_have_no_classes(
    shared_zip: Callable[[str], Path],
) -> None:
    store = load_images("folder", shared_zip("tiny_imagenet_10pct.zip"), limit=400)
    assert store.images.shape == (400, 3, 64, 64)
    assert store.labels is not None
    assert store.labels.bincount().tolist() == [2] * 200
    store = load_images("folder", shared_zip("tiny_imagenet_10pct.zip"), split="val", limit=50)
    assert store.images.shape == (50, 3, 64, 64)
    assert store.labels is None
