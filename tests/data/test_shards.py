"""Numbered parts of a set are no classes, and the labels of StyleGAN's dataset tool are those of its table."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cs_gan.data import ImageStore, labelled, load_images
from cs_gan.errors import DataError

MakeImages = Callable[..., Path]
Zipped = Callable[[Path], Path]

TOOL = [f"{i // 1000:05}/img{i:08}.png" for i in (0, 1, 2, 1000, 1001, 2000)]
LABELS = [5, 0, 2, 2, 0, 5]


@pytest.fixture
def tool(make_images: MakeImages) -> Path:
    """As StyleGAN's dataset tool writes it, shortened."""
    root = make_images(*TOOL)
    (root / "dataset.json").write_text(json.dumps({"labels": [list(row) for row in zip(TOOL, LABELS, strict=True)]}))
    return root


def rewrite(root: Path, content: object) -> Path:
    (root / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return root


def labels_of(store: ImageStore) -> list[int] | None:
    return None if store.labels is None else store.labels.tolist()


@pytest.mark.parametrize("level", ["itself", "parent", "zip"])
def test_labels_are_those_of_the_table(level: str, tool: Path, zipped: Zipped) -> None:
    store = load_images("folder", {"itself": tool, "parent": tool.parent}.get(level) or zipped(tool))
    assert labels_of(store) == LABELS
    assert store.class_names == tuple("012345")  # a class may have no images
    assert "(all, labels of dataset.json): 6 images" in store.description
    assert "6 classes (0, 1, 2, ...)" in store.description


def test_the_table_does_not_hide_what_stands_for_a_split(make_images: MakeImages) -> None:
    names = [f"{split}/{i}/{i}.png" for split in ("train", "val", "pred") for i in range(2)]
    root = make_images(*names)
    rewrite(root, {"labels": [[name, i % 2] for i, name in enumerate(names)]})
    said = load_images("folder", root, split="test").description
    assert "val, which stands for test: there is none, images left out: 2 in pred, labels of dataset.json" in said


def test_a_limit_keeps_the_table_classes(tool: Path) -> None:
    store = load_images("folder", tool, limit=2)
    assert labels_of(store) == [5, 2]
    assert store.num_classes == 6


def test_vectors_are_classes_if_one_of_each_is_1(tool: Path) -> None:
    rewrite(tool, {"labels": [[path, [float(i == label) for i in range(6)]] for path, label in zip(TOOL, LABELS)]})  # noqa: B905
    assert labels_of(load_images("folder", tool)) == LABELS
    rewrite(tool, {"labels": [[path, [0.5, 0.5]] for path in TOOL]})
    store = load_images("folder", tool)
    assert store.labels is None
    assert "dataset.json has vectors that are no classes" in store.description


@pytest.mark.parametrize("content", [None, {"labels": None}, {"images": []}])
def test_shards_without_labels_are_no_classes(content: object, tool: Path) -> None:
    (tool / "dataset.json").unlink()
    store = load_images("folder", tool if content is None else rewrite(tool, content))
    assert store.labels is None
    assert "numbered folders (00000 ... 00002) are no classes: rename them if they are" in store.description
    with pytest.raises(DataError, match=r"has no labels"):
        labelled(store)


@pytest.mark.parametrize(
    "names",
    [
        [f"{i // 1000 * 1000:05}/{i:05}.png" for i in (0, 1, 1000, 1001, 69000)],  # FFHQ
        [f"{i // 1000:04}/{i:07}.png" for i in (0, 1, 1000, 1001)],
        ["00000/abc.png", "00000/abd.png", "00001/xyz.png"],
        ["train/00000/0.png", "train/00001/1.png", "test/00000/2.png"],
    ],
)
def test_numbered_parts_are_no_classes(names: list[str], make_images: MakeImages) -> None:
    store = load_images("folder", make_images(*names))
    assert store.labels is None
    assert "are no classes" in store.description


@pytest.mark.parametrize(
    "names",
    [
        [f"{label}/{i}.png" for label in (0, 1, 10) for i in range(2)],
        [f"{label}/{label}{i}.png" for label in range(3) for i in range(2)],
        [f"{label:05}/00000_{i:05}.ppm" for label in range(3) for i in range(2)],  # traffic signs (GTSRB)
        [f"{label:04}/{i}.png" for label in range(3) for i in range(2)],
        ["0/0000.png", "0/0999.png", "1/1000.png"],
    ],
)
def test_numbered_classes_stay_classes(names: list[str], make_images: MakeImages) -> None:
    store = load_images("folder", make_images(*names))
    folders = list(dict.fromkeys(name.split("/")[0] for name in names))
    assert store.class_names == tuple(folders)
    assert labels_of(store) == [folders.index(name.split("/")[0]) for name in names]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"dataset\.json isn't JSON \(JSONDecodeError"),
        ("[" * 100_000, r"dataset\.json isn't JSON \((RecursionError|JSONDecodeError)"),
        ({"labels": [[TOOL[0], 1]]}, rf"no label for {TOOL[1]} \(5 such of 6\)"),
        ({"labels": {"a": 1}}, r'"labels" must be null or a list'),
        ({"labels": [[path, True] for path in TOOL]}, r"000\.png has the label True\. Give whole numbers from 0"),
        ({"labels": [[path, -1] for path in TOOL]}, r"has the label -1"),
        ({"labels": [[path, 10**6] for path in TOOL]}, r"has label 1000000; at most 65,536 classes"),
        ({"labels": [[path, i] for i in (0, 1) for path in TOOL]}, r"occurs twice, with different labels"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_name(content: object, message: str, tool: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_images("folder", rewrite(tool, content))


def test_a_table_of_other_images_is_said(make_images: MakeImages) -> None:
    root = make_images("train/a/0.png", "train/b/0.png", "test/a/0.png")
    (root / "test" / "dataset.json").write_text('{"labels": null}')
    store = load_images("folder", root)
    assert labels_of(store) == [0, 1]
    assert "(train, test/dataset.json not read)" in store.description


def test_real_images_in_the_tools_layout_have_its_labels(
    shared_zip: Callable[[str], Path], tmp_path: Path, zipped: Zipped
) -> None:
    labels = []
    with zipfile.ZipFile(shared_zip("cifar10_jpeg.zip")) as archive:
        entries = sorted(name for name in archive.namelist() if name.startswith("test/") and name.endswith(".jpg"))
        for i, name in enumerate(entries[::83][:120]):
            path = f"{i // 10:05}/img{i:08}.jpg"
            (tmp_path / "tool" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "tool" / path).write_bytes(archive.read(name))
            labels.append([path, sorted({entry.split("/")[1] for entry in entries}).index(name.split("/")[1])])
    store = load_images("folder", zipped(rewrite(tmp_path / "tool", {"labels": labels})))
    assert labels_of(store) == [label for _, label in labels]
    assert set(labels_of(store) or []) == set(range(10))
