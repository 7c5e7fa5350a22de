"""Folders named as splits: which ones are taken, what stands in, and what is said about the rest."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cs_gan.data import load_images
from cs_gan.data.splits import split_of
from cs_gan.errors import DataError

MakeImages = Callable[..., Path]
Zipped = Callable[[Path], Path]


def counted(root: Path, split: str) -> tuple[int, str, tuple[str, ...]]:
    store = load_images("folder", root, split=split)
    return len(store), store.split, store.class_names


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("TRAIN", "test"),
        ("training", "testing"),
        ("Training", "Testing"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("training_set/training_set", "test_set/test_set"),
        ("train_images", "test_images"),
        ("train2017", "val2017"),
        ("train", "val"),  # AFHQ
        ("train", "validation"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_splits_are_known_by_many_names(
    train: str, test: str, packed: bool, make_images: MakeImages, zipped: Zipped
) -> None:
    root = make_images(
        *(f"{train}/{name}/{i}.png" for name in ("cat", "dog") for i in range(3)),
        *(f"{test}/{name}/0.png" for name in ("cat", "dog")),
    )
    root = zipped(root) if packed else root
    stands_in = test.startswith("val")
    assert counted(root, "train") == (6, "train", ("cat", "dog"))
    assert counted(root, "test") == (2, "val" if stands_in else "test", ("cat", "dog"))
    assert counted(root, "all") == (8, "all", ("cat", "dog"))
    assert ("which stands for test: there is none" in load_images("folder", root, split="test").description) == (
        stands_in
    )


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_a_class_called_train_hides_no_others(split: str, make_images: MakeImages) -> None:
    root = make_images(*(f"{name}/{i}.png" for name in ("bus", "train", "tulip") for i in range(10)))
    assert counted(root, split) == (30, "all", ("bus", "train", "tulip"))
    assert "train/ taken for a class like the folders beside it" in load_images("folder", root).description


def test_splits_beside_other_folders_are_refused_instead_of_mixed(make_images: MakeImages) -> None:
    root = make_images("train/a/0.png", "train/b/0.png", "test/a/0.png", "masks/0.png")
    with pytest.raises(DataError, match=r"has the splits test, train beside masks, so it is unclear.*Move"):
        load_images("folder", root)


def test_what_no_split_takes_is_said(make_images: MakeImages) -> None:
    root = make_images("seg_train/a/0.png", "seg_train/b/0.png", "seg_pred/0.png", "seg_pred/1.png", "logo.png")
    description = load_images("folder", root).description
    assert "(train, images left out: 2 in seg_pred, 1 beside the splits): 2 images" in description
    with pytest.raises(DataError, match=r"no split 'test'\. It has: seg_pred, seg_train and 1 images beside"):
        load_images("folder", root, split="test")


def test_training_images_beside_a_test_folder_are_not_mixed_with_it(make_images: MakeImages) -> None:
    with pytest.raises(DataError, match=r"no split 'train'\. It has: test and 1 images beside"):
        load_images("folder", make_images("0.png", "test/1.png"))


def test_two_folders_of_one_split_are_refused(make_images: MakeImages) -> None:
    root = make_images("train2014/0.png", "train2017/1.png", "val2017/2.png")
    with pytest.raises(DataError, match=r"2 folders for 'train': train2014, train2017\. Keep one"):
        load_images("folder", root)
    exact = make_images("train/0.png", "training/1.png", root="exact")
    assert "(train, images left out: 1 in training)" in load_images("folder", exact).description


def test_a_split_that_only_the_caller_knows_is_taken_and_the_rest_said(make_images: MakeImages) -> None:
    root = make_images("faces/0.png", "cars/1.png")
    assert "(faces, cars/ left out): 1 images" in load_images("folder", root, split="faces").description


@pytest.mark.parametrize("name", ["test_tube", "trainer", "bullet_train", "images", "set", "data", "2017", "n01"])
def test_names_that_are_no_splits(name: str) -> None:
    assert split_of(name) is None


def test_the_classes_are_in_the_description(make_images: MakeImages) -> None:
    root = make_images(*(f"{name}/0.png" for name in ("ant", "b" * 60, "cat", "dog")))
    assert load_images("folder", root).description.endswith(f"4 classes (ant, {'b' * 28}..., cat, ...)")
