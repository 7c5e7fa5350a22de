"""The images a classifier trains on and those it is scored on: only they are decoded."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cs_gan.data import ImageStore, load_images, split, subset, train_and_test
from cs_gan.data.labelled import labels_of
from cs_gan.errors import ConfigError, DataError

MakeImages = Callable[..., Path]


@pytest.fixture
def root(make_images: MakeImages) -> Path:
    """train/ with two classes of eight images, test/ with one image of each."""
    train = [f"train/{name}/{i:04}.png" for name in ("cat", "dog") for i in range(8)]
    return make_images(*train, "test/cat/0000.png", "test/dog/0000.png")


def spoil_others(root: Path, kept: list[ImageStore]) -> int:
    """Overwrite each training image that no store has, and return how many those are."""
    whole = load_images("folder", root)
    files = sorted((root / "train").rglob("*.png"))
    pixels = torch.cat([store.images for store in kept])
    others = [
        file for file, image in zip(files, whole.images, strict=True) if not (pixels == image).all((1, 2, 3)).any()
    ]
    for file in others:
        file.write_bytes(b"not an image")
    return len(others)


def test_of_limited_data_only_the_chosen_images_are_decoded(root: Path) -> None:
    train, _ = train_and_test("folder", root, limit=4, limit_seed=3)
    assert spoil_others(root, [train]) == 12
    again, _ = train_and_test("folder", root, limit=4, limit_seed=3)
    assert torch.equal(again.images, train.images)
    with pytest.raises(DataError, match="not an image"):
        train_and_test("folder", root, limit=5, limit_seed=3)


def test_held_out_images_are_decoded_only_where_they_are_scored(root: Path) -> None:
    train, test = train_and_test("folder", root, holdout=6)
    assert (len(train), len(test)) == (10, 2)
    assert spoil_others(root, [train]) == 6
    assert torch.equal(train_and_test("folder", root, holdout=6)[0].images, train.images)
    with pytest.raises(DataError, match="not an image"):
        train_and_test("folder", root, holdout=6, validation=True)


def test_the_choice_is_that_of_a_decoded_store(root: Path) -> None:
    train, held = train_and_test("folder", root, holdout=6, validation=True, limit=4, limit_seed=3)
    rest, expected_held = split(load_images("folder", root), 6, seed=0)
    expected = subset(rest, 4, seed=3)
    for actual, wanted in ((train, expected), (held, expected_held)):
        assert torch.equal(actual.images, wanted.images)
        assert labels_of(actual).tolist() == labels_of(wanted).tolist()
        assert (actual.fingerprint, actual.description) == (wanted.fingerprint, wanted.description)
        assert actual.class_names == wanted.class_names == ("cat", "dog")


def test_missing_test_images_are_told_before_anything_is_decoded(make_images: MakeImages) -> None:
    root = make_images("cat/0.png", "dog/0.png")
    (root / "cat" / "0.png").write_bytes(b"not an image")
    with pytest.raises(ConfigError, match="has no test images of its own"):
        train_and_test("folder", root)
