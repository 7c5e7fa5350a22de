"""Parquet as the Hugging Face Hub stores it: a file, a folder, a name of the Hub. What is read, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from torchvision.datasets import CIFAR10

from cs_gan.data import load_images
from cs_gan.data.parquet import _group
from cs_gan.errors import DataError
from tests.data.packed import Pixels, png, random_images, write_parquet

CLASSES = {"label": ["cat", "dog"]}
CIFAR100 = {"fine_label": ["a", "b"], "coarse_label": ["c"]}


def as_store(pixels: Pixels) -> Pixels:  # (n, H, W, 3) -> (n, 3, H, W)
    return pixels.transpose(0, 3, 1, 2)


@pytest.fixture
def cifar(tmp_path: Path) -> tuple[Path, Pixels, Pixels]:
    """The form of uoft-cs/cifar10: plain_text/{train,test}-*.parquet with img and label. Train is in two files."""
    train, test = random_images(7, 32, 1), random_images(3, 32, 2)
    folder = tmp_path / "plain_text"
    halves = {"00000": slice(0, 4), "00001": slice(4, 7)}
    labels = [0, 1, 1, 0, 1, 0, 0]
    for number, half in halves.items():
        path = folder / f"train-{number}-of-00002.parquet"
        write_parquet(path, train[half], {"label": labels[half]}, CLASSES, column="img", rows=2)
    write_parquet(folder / "test-00000-of-00001.parquet", test, {"label": [1, 1, 0]}, CLASSES, column="img")
    return tmp_path, train, test


def test_a_folder_of_parquet_gives_the_images_labels_and_names_of_a_split(cifar: tuple[Path, Pixels, Pixels]) -> None:
    root, train, test = cifar
    for place in (root, root / "plain_text"):
        store = load_images("folder", place)
        np.testing.assert_array_equal(store.images, as_store(train))
        assert store.labels is not None
        assert store.labels.tolist() == [0, 1, 1, 0, 1, 0, 0]
        assert store.class_names == ("cat", "dog")
        assert store.split == "train"
        assert "folder (train, 2 Parquet files): 7 images, 3x32x32" in store.description
        other = load_images("folder", place, split="test")
        np.testing.assert_array_equal(other.images, as_store(test))
        assert len(load_images("folder", place, split="all")) == 10


def test_a_chosen_part_of_parquet_is_that_part_of_the_whole(cifar: tuple[Path, Pixels, Pixels]) -> None:
    whole = load_images("folder", cifar[0])
    part = load_images("folder", cifar[0], limit=4, limit_seed=3)
    places = [int((whole.images == image).flatten(1).all(1).nonzero()) for image in part.images]
    assert places == sorted(places)
    assert part.labels is not None
    assert whole.labels is not None
    assert part.labels.tolist() == whole.labels[places].tolist()
    assert _group.cache_info().currsize == 0  # nothing stays in memory


def test_parquet_of_a_named_data_set_is_read_under_its_name_and_never_downloaded(
    cifar: tuple[Path, Pixels, Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CIFAR10, "download", lambda self: pytest.fail("tried to download"))
    store = load_images("cifar10", cifar[0])
    np.testing.assert_array_equal(store.images, as_store(cifar[1]))
    assert store.name == "cifar10"


def test_celeba_in_parquet_is_cropped_as_its_jpegs_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 218, 178, 3), dtype=np.uint8)
    write_parquet(tmp_path / "p" / "data" / "valid-00000-of-00001.parquet", pixels)
    (tmp_path / "plain").mkdir()
    for i, image in enumerate(pixels):
        (tmp_path / "plain" / f"{i}.png").write_bytes(png(image))
    for split in ("valid", "val", "test"):
        packed = load_images("celeba", tmp_path / "p", split=split)
        assert torch.equal(packed.images, load_images("celeba", tmp_path / "plain", split="all").images)
    assert "which stands for test: there is none" in packed.description
    with pytest.raises(DataError, match=r"has no split 'train'\. It has: val"):
        load_images("celeba", tmp_path / "p")


def test_one_file_is_read_with_the_split_of_its_name(cifar: tuple[Path, Pixels, Pixels], tmp_path: Path) -> None:
    root, train, _ = cifar
    store = load_images("folder", root / "plain_text" / "train-00001-of-00002.parquet")
    np.testing.assert_array_equal(store.images, as_store(train[4:]))
    assert "train, part 1 of 2 alone" in store.description
    alone = write_parquet(tmp_path / "flowers.parquet", train)
    assert load_images("folder", alone).split == "all"
    assert load_images("folder", alone).labels is None


@pytest.mark.parametrize(
    "name", ["train/0000.parquet", "data/train.parquet", "my-train-0001.parquet", "TRAIN_set.parquet"]
)
def test_a_split_is_told_by_a_word_of_the_file_or_its_folder(name: str, tmp_path: Path) -> None:
    write_parquet(tmp_path / name, random_images(2))
    write_parquet(tmp_path / name.lower().replace("train", "validation"), random_images(3))
    assert len(load_images("folder", tmp_path)) == 2
    assert len(load_images("folder", tmp_path, split="test")) == 3


@pytest.mark.parametrize(
    ("labels", "classes", "expected", "names"),
    [
        ({"label": [1, 0, 1]}, CLASSES, [1, 0, 1], ("cat", "dog")),
        ({"label": [2, 0, 1]}, {}, [2, 0, 1], ("0", "1", "2")),
        ({"label": ["b10", "b9", "b9"]}, {}, [1, 0, 0], ("b9", "b10")),
        ({"fine_label": [1, 0, 1], "coarse_label": [0, 0, 0]}, CIFAR100, [1, 0, 1], ("a", "b")),
        ({"breed": [0, 1, 1]}, {"breed": ["pug", "corgi"]}, [0, 1, 1], ("pug", "corgi")),
        ({"label": [0, 1, 2]}, {"label": ["crane", "dog", "crane"]}, [0, 1, 2], ("crane (0)", "dog", "crane (2)")),
        ({"width": [8, 8, 8]}, {}, None, ()),
        ({"label": [-1, -1, -1]}, CLASSES, None, ()),
        ({"label": [None, None, None]}, {}, None, ()),
    ],
)  # fmt: skip
def test_labels_are_those_of_the_column_of_classes(
    labels: dict[str, Any], classes: dict[str, Any], expected: list[int] | None, names: tuple[str, ...], tmp_path: Path
) -> None:
    store = load_images("folder", write_parquet(tmp_path / "a.parquet", random_images(3), labels, classes))
    assert (store.labels if expected is None else store.labels.tolist()) == expected
    assert store.class_names == names
    assert ("labels of fine_label" in store.description) == (len(labels) > 1)


def test_classes_are_the_same_in_files_that_number_them_differently(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", random_images(2), {"label": [0, 1]}, {"label": ["cat", "dog"]})
    write_parquet(tmp_path / "b.parquet", random_images(2), {"label": [0, 1]}, {"label": ["dog", "ant"]})
    store = load_images("folder", tmp_path)
    assert store.labels is not None
    assert [store.class_names[label] for label in store.labels] == ["cat", "dog", "dog", "ant"]


def test_plain_bytes_are_images_too(tmp_path: Path) -> None:
    pixels = random_images(2)
    parquet.write_table(pa.table({"jpg": [png(p) for p in pixels], "id": ["a", "b"]}), tmp_path / "a.parquet")
    np.testing.assert_array_equal(load_images("folder", tmp_path).images, as_store(pixels))


def table(**columns: Any) -> pa.Table:
    return pa.table(columns)


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table(text=["a"]), r"a\.parquet has no column of images\. It has: text"),
        (
            table(before=[b"a"], after=[b"b"]),
            r"several columns of images: before, after\. Name the one to read 'image'",
        ),
        (table(image=[[1, 2]]), "has no column of images"),
        (table(image=pa.array([{"bytes": None, "path": "x/0.png"}], STRUCT)), r"row 0: the row has only the path 'x/0"),
        (table(image=pa.array([None], STRUCT)), "row 0: the row has no image"),
        (table(image=[b""]), "row 0: the file is empty"),
        (table(image=[b"no image"]), r"row 0 can't be decoded"),
        (table(image=[b"GIF89a"]), r"row 0: the file's content is GIF"),
        (table(image=pa.array([], pa.binary())), "hold no pictures"),
        (table(image=[png(random_images(1)[0])] * 2, label=["a", None]), r"image 1 has the label None, and image 0"),
        (table(image=[png(random_images(1)[0])] * 2, label=[0, -3]), "Labels out of range: image 1 has label -3"),
    ],
)
def test_broken_parquet_is_refused_with_the_file_and_row(content: pa.Table, message: str, tmp_path: Path) -> None:
    parquet.write_table(content, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        load_images("folder", tmp_path)


@pytest.mark.parametrize("cut", [0, 3, 50, -1, -200])
def test_truncated_parquet_is_refused(cut: int, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", random_images(3))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.parquet can't be read as Parquet .*Get it again"):
        load_images("folder", tmp_path)


def test_a_missing_part_is_refused_and_named(cifar: tuple[Path, Pixels, Pixels]) -> None:
    (cifar[0] / "plain_text" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"lacks plain_text/train-00000-of-00002\. Get"):
        load_images("folder", cifar[0])
    assert len(load_images("folder", cifar[0], split="test")) == 3


def test_two_data_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    for name in ("clean/train/0.parquet", "noisy/train/0.parquet"):
        write_parquet(tmp_path / name, random_images(2))
    with pytest.raises(DataError, match=r"several folders: clean, noisy\. .* Give one of them as --data\.root"):
        load_images("folder", tmp_path)
    assert len(load_images("folder", tmp_path / "clean")) == 2


def test_without_pyarrow_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "a.parquet", random_images(2))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r'pip install "\.\[parquet\]"'):
        load_images("folder", tmp_path)


class Hub:
    """Stands for huggingface_hub.snapshot_download: gives a folder for each revision, and notes what was asked."""

    def __init__(self, **folders: Path) -> None:
        self.folders, self.asked = folders, list[dict[str, Any]]()

    def __call__(self, repo: str, **asked: Any) -> str:
        self.asked.append({"repo": repo, **asked})
        return str(self.folders["converted" if asked["revision"] else "main"])


def test_a_name_of_the_hub_downloads_its_parquet_and_reads_it(
    cifar: tuple[Path, Pixels, Pixels], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = Hub(main=cifar[0])
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    store = load_images("hf:uoft-cs/cifar10", split="test")
    np.testing.assert_array_equal(store.images, as_store(cifar[2]))
    assert store.description.startswith("hf:uoft-cs/cifar10 (test): 3 images, 3x32x32")
    assert store.class_names == ("cat", "dog")
    expected = {"repo": "uoft-cs/cifar10", "repo_type": "dataset", "revision": None, "local_dir": None}
    assert hub.asked == [{**expected, "allow_patterns": ["*.parquet"]}]
    load_images("hf:uoft-cs/cifar10/plain_text", tmp_path / "here")
    assert hub.asked[1]["allow_patterns"] == ["plain_text/*.parquet"]
    assert hub.asked[1]["local_dir"] == tmp_path / "here"


def test_a_data_set_of_another_form_is_read_from_the_hubs_own_conversion(
    cifar: tuple[Path, Pixels, Pixels], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    hub = Hub(main=tmp_path / "empty", converted=cifar[0])
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    assert len(load_images("hf:someone/images")) == 7
    assert [asked["revision"] for asked in hub.asked] == [None, "refs/convert/parquet"]
    hub.folders["converted"] = tmp_path / "empty"
    with pytest.raises(DataError, match=r"the Hub has no Parquet files of it\. Download the data set by hand"):
        load_images("hf:someone/images")


def test_a_failed_download_says_how_to_get_the_data_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise OSError("no\nnetwork")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    message = r"couldn't be downloaded \(OSError: no network\).* https://huggingface\.co/datasets/uoft-cs/cifar10"
    with pytest.raises(DataError, match=message):
        load_images("hf:uoft-cs/cifar10")


@pytest.mark.parametrize("name", ["hf:", "hf:mnist", "hf:a/../b", "hf:../b", "hf:a/b c", "hf://datasets/a"])
def test_another_form_of_name_is_refused_before_any_download(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("tried to download"))
    with pytest.raises(DataError, match="give hf:<owner>/<name>, as in the Hub's address"):
        load_images(name)


def test_the_hubs_name_without_hf_is_told() -> None:
    with pytest.raises(DataError, match=r"For a data set of the Hugging Face Hub give 'hf:uoft-cs/cifar10'"):
        load_images("uoft-cs/cifar10")
