"""Tiny ImageNet as published, from a folder or a zip; whatever is missing, unknown or not listed is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cs_gan.data import labelled, load_images
from cs_gan.errors import DataError

MakeImages = Callable[..., Path]
Zipped = Callable[[Path], Path]

WNIDS = ("n3", "n1", "n2")
VAL = {"val_0.JPEG": "n1", "val_1.JPEG": "n3", "val_10.JPEG": "n2", "val_2.JPEG": "n3"}


@pytest.fixture
def tiny(make_images: MakeImages) -> Path:
    """The published layout: three classes of two for training, four images for validation, two for test."""
    top = "tiny-imagenet-200"
    train = [f"{top}/train/{wnid}/images/{wnid}_{i}.JPEG" for wnid in WNIDS for i in (9, 10)]
    images = [*train, *(f"{top}/val/images/{name}" for name in VAL), f"{top}/test/images/test_0.JPEG"]
    folder = make_images(*images, width=64, height=64, root="root") / top
    for wnid in WNIDS:
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("not read")
    (folder / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (folder / "words.txt").write_text("n0\tentity\nn1\tcrane, bird\nn2\tcrane\nn3\tegg\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(f"{k}\t{v}\t0\t1\t2\t3\n" for k, v in VAL.items()))
    return folder


@pytest.mark.parametrize("level", ["itself", "parent", "zip of itself", "zip of parent"])
def test_folder_and_zip_give_the_same_two_splits(level: str, tiny: Path, zipped: Zipped) -> None:
    root = tiny.parent if level.endswith("parent") else tiny
    root = zipped(root) if level.startswith("zip") else root
    train, val = (load_images("tiny_imagenet", root, split=split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("egg", "crane (n1)", "crane (n2)")
    expected = [tiny / "train" / wnid / "images" / f"{wnid}_{i}.JPEG" for wnid in WNIDS for i in (9, 10)]
    np.testing.assert_array_equal(
        train.images.permute(0, 2, 3, 1), np.stack([np.asarray(Image.open(path)) for path in expected])
    )
    assert train.labels is not None
    assert val.labels is not None
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert val.labels.tolist() == [1, 0, 0, 2]  # val_0, val_1, val_2, val_10
    assert train.description.startswith("tiny_imagenet (train): 6 images, 3x64x64")
    labelled(train)


def test_test_means_val_and_says_so(tiny: Path) -> None:
    val, test = (load_images("tiny_imagenet", tiny, split=split) for split in ("val", "test"))
    assert torch.equal(test.images, val.images)
    assert test.fingerprint == val.fingerprint
    assert "(val, which stands for test: that has no labels): 4 images" in test.description
    with pytest.raises(DataError, match=r"no split 'valid'; it has train and val \(test means val\)"):
        load_images("tiny_imagenet", tiny, split="valid")


def test_without_words_the_ids_are_names(tiny: Path) -> None:
    (tiny / "words.txt").unlink()
    assert load_images("tiny_imagenet", tiny).class_names == WNIDS


def test_without_a_root_it_is_looked_for_in_data(
    tiny: Path, zipped: Zipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"neither data/tiny-imagenet-200 nor data/tiny-imagenet-200.zip. Get http"):
        load_images("tiny_imagenet")
    archive = zipped(tiny)
    (tmp_path / "data").mkdir()
    archive.rename(tmp_path / "data" / archive.name)
    with pytest.raises(DataError, match=r"has no images, but zips\. Give one of tiny-imagenet-200\.zip"):
        load_images("tiny_imagenet", "data")
    assert len(load_images("tiny_imagenet")) == 6


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("train", ("wnids.txt", None), r"holds no wnids\.txt, so it isn't Tiny ImageNet .* --data\.name=folder"),
        ("train", ("wnids.txt", "n3\nn1\nn1\n"), r"wnids\.txt must list .*; it has 3 lines, 2 of them different"),
        ("train", ("wnids.txt", "n3\nn1\n"), r"train/n2/images/n2_\d+\.JPEG isn't in the folder of a class"),
        ("train", ("wnids.txt", "n3\nn1\nn2\nn4\n"), r"class folder .*train/n4 holds no images\. Get the data again"),
        ("train", ("wnids.txt", "n3\nn1\nn2\nn4\nn5\n"), r"train/n4 holds no images, nor do 1 others"),
        ("val", ("val/val_annotations.txt", None), r"val_annotations\.txt is missing: .* --data\.name=folder"),
        ("val", ("val/val_annotations.txt", "val_0.JPEG n1\n"), r"line 1: 'val_0\.JPEG n1' isn't '<file>, tab"),
        ("val", ("val/val_annotations.txt", "\nval_0.JPEG\tn9\n"), r"line 2: val_0\.JPEG is of class 'n9', which"),
        ("val", ("val/val_annotations.txt", "a\tn1\na\tn2\n"), r"line 2: a occurs twice, with different classes"),
        ("val", ("val/val_annotations.txt", "val_0.JPEG\tn1\n"), r"val_1\.JPEG has no line in .* \(3 such of 4\)"),
        ("val", ("val/val_annotations.txt", b"\xff\xfe"), r"val_annotations\.txt can't be read \(UnicodeDecodeError"),
        ("val", ("val/images/val_2.JPEG", None), r"lists val_2\.JPEG, which isn't in val/images \(1 such of 4\)"),
    ],
)
def test_what_does_not_fit_is_named(
    split: str, change: tuple[str, str | bytes | None], message: str, packed: bool, tiny: Path, zipped: Zipped
) -> None:
    path, content = tiny / change[0], change[1]
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=message):
        load_images("tiny_imagenet", zipped(tiny) if packed else tiny, split=split)


def test_a_split_without_images_is_named(tiny: Path) -> None:
    for path in (tiny / "val" / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"holds no images in val\."):
        load_images("tiny_imagenet", tiny, split="val")


def test_real_tiny_imagenet_loads(shared_zip: Callable[[str], Path]) -> None:
    archive = shared_zip("tiny_imagenet_10pct.zip")
    train = load_images("tiny_imagenet", archive, limit=400)
    assert train.images.shape == (400, 3, 64, 64)
    assert train.labels is not None
    assert train.labels.bincount().tolist() == [2] * 200
    assert train.class_names[:3] == ("Egyptian cat", "reel", "volleyball")
    test = load_images("tiny_imagenet", archive, split="test", limit=100)
    assert test.num_classes == 200
    assert test.class_names == train.class_names
