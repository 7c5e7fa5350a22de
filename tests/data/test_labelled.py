"""Labelled stores: class names, what a classifier refuses, balanced subsets, held-out images, ordered batches."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cs_gan.data import ImageStore, labelled, load_images, split, subset
from cs_gan.errors import DataError

MakeImages = Callable[..., Path]
Zipped = Callable[[Path], Path]


def make_store(*counts: int, names: tuple[str, ...] = ()) -> ImageStore:
    """A store with that many images of each class, interleaved; every image is its own number."""
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels))]
    images = torch.arange(len(labels) * 4).remainder(256).to(torch.uint8).view(-1, 1, 2, 2)
    return ImageStore(images, labels, "counted", "counted", "train", class_names=names)


def ids(store: ImageStore) -> list[int]:
    return store.images[:, 0, 0, 0].tolist()


# -- classes ---------------------------------------------------------------------------------------


def test_classes_without_names_have_numbers() -> None:
    store = make_store(1, 0, 1)
    assert store.class_names == ("0", "1", "2")
    unlabelled = replace(store, labels=None)
    assert (unlabelled.num_classes, unlabelled.class_names) == (0, ())


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 3, 1], ("a", "b", "c"), r"image 1 has label 3 \(1 such of 3\), but the 3 classes are 0 \.\.\. 2"),
        ([0, -1, -1], (), r"image 1 has label -1 \(2 such of 3\)"),
        ([0, 1, 10**9], (), r"image 2 has label 1000000000 .* but the 65536 classes .* give all classes a name"),
        ([0, 1, 1], ("a", "b", "a"), "contain 'a' twice"),
        ([0.0, 1.0, 1.0], (), r"torch\.float32: give class numbers as int64"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: list[float], names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageStore(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor(labels), "x", "x", class_names=names)


@pytest.mark.parametrize("images", [("a.png", "b.png"), ("cat/a.png", "cat/b.png")])
def test_data_without_classes_are_told_to_bring_folders(images: tuple[str, ...], make_images: MakeImages) -> None:
    store = load_images("folder", make_images(*images))
    for use in (labelled, lambda s: subset(s, 2, 0), lambda s: split(s, 1, 0)):
        with pytest.raises(DataError, match=r"folder \(all\): 2 images, .* has no labels.*<root>/train/<class>"):
            use(store)


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(DataError, match="all images are of one class, 'b'"):
        labelled(make_store(0, 3, names=("a", "b")))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("images", "empty", "named"),
    [
        (("train/cat/a.png", "train/dog/a.png"), ("train/eel", "test/fox", "notes"), "train/eel"),
        (("cat/a.png", "dog/a.png"), ("eel", "cat/deep"), "eel"),
        (("train/cat/a.png",), ("train/dog", "train/eel"), "train/dog, train/eel"),  # one class is left
        (("top/train/cat/a.png", "top/train/dog/a.png"), ("top/train/eel",), "top/train/eel"),
    ],
)
def test_class_folders_without_images_are_named(
    images: tuple[str, ...],
    empty: tuple[str, ...],
    named: str,
    packed: bool,
    make_images: MakeImages,
    zipped: Zipped,
) -> None:
    root = make_images(*images)
    for folder in empty:
        (root / folder).mkdir(parents=True)
        (root / folder / "readme.txt").write_text("none yet")
    store = load_images("folder", zipped(root) if packed else root)  # a GAN doesn't mind
    with pytest.raises(DataError, match=rf"class folders without images: {named}\. Put images there"):
        labelled(store)


def test_a_class_that_is_empty_in_one_split_is_none_in_all(classes: Path) -> None:
    (classes / "test" / "dog" / "0000.png").unlink()
    labelled(load_images("folder", classes, split="all"))
    (classes / "train" / "eel").mkdir()
    with pytest.raises(DataError, match="train/eel"):
        labelled(load_images("folder", classes, split="all"))


@pytest.mark.parametrize("extra", ["empty", ".hidden", "__MACOSX"])
def test_a_folder_beside_images_or_a_hidden_one_is_no_class(extra: str, make_images: MakeImages) -> None:
    root = make_images("a.png") if extra == "empty" else make_images("cat/a.png", "dog/a.png")
    (root / extra).mkdir()
    assert load_images("folder", root).empty_classes == ()


def test_labels_follow_the_names_of_a_trained_network() -> None:
    store = make_store(2, 3, names=("eel", "cat"))
    renamed = labelled(store, ["cat", "dog", "eel"])
    assert renamed.class_names == ("cat", "dog", "eel")
    assert store.labels is not None
    assert renamed.labels is not None
    assert renamed.labels.tolist() == [[2, 0][label] for label in store.labels]
    assert labelled(make_store(0, 3, names=("a", "b")), ["a", "b"]).num_classes == 2  # a test set may show one alone


def test_classes_that_a_network_does_not_know_are_named() -> None:
    with pytest.raises(DataError, match=r"class 'fox' isn't among the 2 .* \('cat', 'dog'\)"):
        labelled(make_store(1, 1, names=("cat", "fox")), ("cat", "dog"))


# -- subsets and splits ----------------------------------------------------------------------------


def test_a_subset_is_balanced_ordered_and_chosen_by_its_seed() -> None:
    store = make_store(30, 11, 19)
    small = subset(store, 31, seed=4)
    assert small.labels is not None
    assert sorted(small.labels.bincount().tolist()) == [10, 10, 11]
    assert ids(small) == sorted(ids(small))
    lookup = dict(zip(ids(store), store.labels.tolist(), strict=True))  # type: ignore[union-attr]
    assert [lookup[i] for i in ids(small)] == small.labels.tolist()
    assert torch.equal(subset(store, 31, seed=4).images, small.images)
    assert ids(subset(store, 31, seed=5)) != ids(small)
    assert set(ids(subset(store, 10, seed=4))) < set(ids(small))
    assert small.class_names == store.class_names
    assert small.description.startswith("counted (train, 31 of 60 balanced by seed 4): 31 images")


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (2, r"count=2\): give at least 3, one image for each class"),
        (18, r"class '1' of counted has 5 images, and its share would be 6\. Ask for at most 15"),
    ],
)
def test_subsets_that_can_not_be_balanced_are_refused(count: int, message: str) -> None:
    store = make_store(30, 5, 30)
    with pytest.raises(DataError, match=message):
        subset(store, count, seed=0)


def test_a_class_that_shows_no_image_is_named() -> None:
    for use in (lambda s: subset(s, 3, 0), lambda s: split(s, 2, 0)):
        with pytest.raises(DataError, match=r"class 'b' has no image .*\(1 of 3 classes\)"):
            use(make_store(5, 0, 5, names=("a", "b", "c")))


@pytest.mark.parametrize(("held_out", "expected"), [(12, [6, 4, 2]), (0.2, [6, 4, 2]), (10, [5, 3, 2])])
def test_a_split_is_stratified_and_loses_nothing(held_out: float, expected: list[int]) -> None:
    store = make_store(30, 20, 10)
    rest, held = split(store, held_out, seed=1)
    assert held.labels is not None
    assert held.labels.bincount().tolist() == expected  # 10 of 60: 5, 3 1/3 and 1 2/3
    assert sorted(ids(rest) + ids(held)) == ids(store)
    assert torch.equal(split(store, held_out, seed=1)[1].images, held.images)
    assert not torch.equal(split(store, held_out, seed=2)[1].images, held.images)
    assert len({store.fingerprint, rest.fingerprint, held.fingerprint}) == 3
    assert (rest.split, held.split) == ("train without held-out", "train held-out")


@pytest.mark.parametrize("held_out", [0, 60, -1, 0.0, 1.0, 1.5, 1e-9])
def test_splits_with_an_empty_part_are_refused(held_out: float) -> None:
    with pytest.raises(DataError, match=r"give a share between 0 and 1 or a number of images between 0 and 60"):
        split(make_store(30, 30), held_out, seed=0)


def test_a_split_that_leaves_a_class_untrained_is_refused() -> None:
    with pytest.raises(DataError, match="of class '1', which has 1 images in counted, no image would be left"):
        split(make_store(30, 1), 30, seed=0)


def test_parts_of_a_mapped_store_may_be_mapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = make_store(30, 30)
    plain = subset(store, 20, seed=0)
    monkeypatch.setattr("cs_gan.data.memory.available_memory", lambda: 10)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    mapped = subset(store, 20, seed=0)
    assert "in a mapped file" in mapped.description
    assert torch.equal(mapped.images, plain.images)
