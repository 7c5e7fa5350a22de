"""Data that can't be read is named in one sentence, with the way out, and never downloaded over."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100, CelebA, FashionMNIST

from cs_gan.data import load_images, load_shifted
from cs_gan.errors import DataError

MakeImages = Callable[..., Path]
Zipped = Callable[[Path], Path]

KINDS = [
    ("train/data-00000-of-00001.arrow", "Arrow, as Hugging Face"),
    ("images.tar.gz", "a packed tar archive"),
    ("images.tgz", "a packed tar archive"),
    ("lsun/data.mdb", "an LMDB"),
    ("train.tfrecord-00000-of-00010", "TFRecord"),
    ("train.tfrecords", "TFRecord"),
    ("train.npy", "a NumPy array"),
    ("train.h5", "HDF5"),
    ("train.pt", "torch tensors"),
    ("numbers.mat", "a MATLAB file"),
    ("cifar-10-binary.tar.gz", "CIFAR's binary version, packed"),
    ("cifar-10-batches-bin/data_batch_1.bin", "CIFAR's binary version"),
    ("cifar-100-binary/train.bin", "CIFAR's binary version"),
    ("cifar-10-batches-mat/data_batch_1.mat", "CIFAR's MATLAB version"),
    ("mine/data_batch_1", "CIFAR's Python version"),
    ("clips/a.mp4", "a video"),
]


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    for dataset in (CIFAR10, CIFAR100, CelebA, FashionMNIST):
        monkeypatch.setattr(dataset, "download", lambda self: pytest.fail("tried to download"))


@pytest.mark.parametrize(("file", "told"), KINDS)
@pytest.mark.parametrize("name", ["folder", "cifar10", "celeba"])
def test_what_is_there_is_named(name: str, file: str, told: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"x" * 100)
    with pytest.raises(DataError, match=rf"no images, but {file}, which is {told}.*\. [A-Z].*\.$") as caught:
        load_images(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / file]


def test_in_a_zip_it_is_named_too(tmp_path: Path, zipped: Zipped) -> None:
    (tmp_path / "x").mkdir()
    for i in range(3):
        (tmp_path / "x" / f"{i}.parquet").write_bytes(b"x")
    with pytest.raises(DataError, match=r"x\.zip holds no images, but .*\.parquet \(and 2 more\), which is Parquet"):
        load_images("folder", zipped(tmp_path / "x"))


@pytest.mark.parametrize("name", ["folder", "cifar10", "celeba", "tiny_imagenet"])
def test_a_file_that_is_the_root_is_named(name: str, tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "a.pt")  # a zip inside
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"x")
    told = {
        "a.npy": "a NumPy array",
        "a.pt": "torch tensors",
        "cifar-10-python.tar.gz": "CIFAR's Python version",
    }
    for file, what in told.items():
        with pytest.raises(DataError, match=rf"{file} is neither a folder nor a zip: {file}, which is {what}"):
            load_images(name, tmp_path / file)


@pytest.mark.parametrize("name", ["folder", "cifar10", "celeba", "tiny_imagenet"])
@pytest.mark.parametrize("file", ["data/train-00000-of-00001.parquet", "00000.tar", "train.npz"])
def test_broken_packed_data_is_refused_and_never_downloaded_over(name: str, file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"x" * 100)
    with pytest.raises(DataError, match=rf"{file} can't be read as .*\. It is .*Get it again"):
        load_images(name, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / file]


def test_files_of_a_data_set_with_a_name_say_the_name(tmp_path: Path) -> None:
    for file, name in (("train_32x32.mat", "svhn"), ("stl10_binary/train_X.bin", "stl10")):
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).write_bytes(b"x")
        with pytest.raises(DataError, match=rf"{file}, which is .* Use --data\.name={name}"):
            load_images("folder", tmp_path / name)


def test_a_part_of_cifars_archive_is_not_downloaded_over(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"half")
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz isn't the published file, or only a part"):
        load_images("cifar10", tmp_path)
    assert (tmp_path / "cifar-10-python.tar.gz").read_bytes() == b"half"


def test_other_downloads_of_torchvision_are_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("cifar-100-python.tar.gz", "cifar-100-python/train", "FashionMNIST/raw/t10k-images-idx3-ubyte.gz"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"x")
    asked: list[object] = []

    def fail(self: object) -> None:
        asked.append(self)
        raise OSError("no network")

    monkeypatch.setattr(CIFAR10, "download", fail)
    with pytest.raises(DataError, match="couldn't be downloaded"):
        load_images("cifar10", tmp_path)
    assert asked


@pytest.mark.parametrize("root", ["hf://datasets/uoft-cs/cifar10", "https://example.org/a.zip", "s3://bucket/x"])
def test_an_address_keeps_its_slashes(root: str) -> None:
    scheme = root.split(":")[0]
    with pytest.raises(DataError, match=rf"--data\.root={root} is an address \({scheme}\), but .* this machine"):
        load_images("folder", root)
    with pytest.raises(DataError, match=rf"{root} is an address.*{'name=hf:<owner>/<name>' if scheme == 'hf' else ''}"):
        load_shifted("cifar10.1", root)


def test_files_without_an_ending_are_said(make_images: MakeImages, zipped: Zipped) -> None:
    root = make_images("a.png")
    for name in ("b", "c", "README", "LICENSE"):
        (root / name).write_bytes((root / "a.png").read_bytes())
    for source in (root, zipped(root)):
        assert "2 files left out (2 without an ending)" in load_images("folder", source).description
    (root / "a.png").unlink()
    with pytest.raises(DataError, match=r"holds no images\. .* 2 files have no ending, such as b: give them that"):
        load_images("folder", root)


CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.mark.parametrize("packed", [False, True])
def test_images_of_another_set_do_not_bear_its_name(packed: bool, make_images: MakeImages, zipped: Zipped) -> None:
    root = make_images(*(f"train/{label}/0.png" for label in CIFAR10_CLASSES))
    root = zipped(root) if packed else root
    for name in ("cifar100", "svhn", "stl10"):
        with pytest.raises(DataError, match=rf"name={name}, but .* has the classes of cifar10\. Give"):
            load_images(name, root)
    assert load_images("cifar10", root).class_names == tuple(CIFAR10_CLASSES)


def test_more_classes_than_the_set_has_are_refused_and_a_part_of_them_is_read(make_images: MakeImages) -> None:
    root = make_images(*(f"{label}/0.png" for label in (*CIFAR10_CLASSES, "zebra")), root="eleven")
    with pytest.raises(DataError, match=r"cifar10, which has 10 classes, but .*eleven has 11.*--data.name=folder"):
        load_images("cifar10", root)
    assert load_images("folder", root).num_classes == load_images("cifar100", root).num_classes == 11
    assert load_images("cifar10", make_images("cat/0.png", "dog/0.png", root="two")).num_classes == 2
