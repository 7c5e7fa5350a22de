"""Whatever is wrong with the data, the error names it and says what to do."""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from cs_gan.data import load_images, preparation, sources
from cs_gan.errors import DataError

MakeImages = Callable[..., Path]
Zipped = Callable[[Path], Path]


@pytest.mark.parametrize("name", ["folder", "cifar10", "cifar100", "fashion_mnist", "celeba"])
def test_a_missing_root_names_the_nearest_parent(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"no/such/folder doesn't exist; .* is {tmp_path}\."):
        load_images(name, tmp_path / "no" / "such" / "folder")


def test_folder_needs_a_root() -> None:
    with pytest.raises(DataError, match=r"needs --data\.root"):
        load_images("folder")


def test_a_root_that_is_a_plain_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png")
    with pytest.raises(DataError, match="neither a folder nor a zip"):
        load_images("folder", tmp_path / "list.txt")


def test_a_folder_of_zips_asks_for_one_of_them(make_images: MakeImages, zipped: Zipped, tmp_path: Path) -> None:
    archive = zipped(make_images("a.png"))
    (tmp_path / "zips").mkdir()
    archive.rename(tmp_path / "zips" / "faces.zip")
    with pytest.raises(DataError, match=r"Give one of faces\.zip"):
        load_images("celeba", tmp_path / "zips")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", r"b\.png can't be decoded .* delete or replace it"),
        ("empty", r"b\.png: the file is empty\. Delete or replace it"),
        ("text", r"b\.png can't be decoded .* not an image: delete or replace it"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_broken_image_is_named(
    kind: str, message: str, packed: bool, make_images: MakeImages, zipped: Zipped
) -> None:
    root = make_images("a.png", "b.png", "c.png")
    content = (root / "b.png").read_bytes()
    (root / "b.png").write_bytes({"truncated": content[:200], "empty": b"", "text": b"<html>"}[kind])
    with pytest.raises(DataError, match=message):
        load_images("folder", zipped(root) if packed else root)


def test_the_first_of_several_broken_images_is_named(make_images: MakeImages) -> None:
    root = make_images(*[f"{i}.png" for i in range(200)])
    for i in (70, 199):
        (root / f"{i}.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"70\.png"):
        load_images("folder", root)


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("b.png", "gone.png", r"b\.png is a broken link \(No such file"),
        ("train", "../gone", r"train is a broken link \(No such file"),
        ("b.png", "b.png", r"b\.png is a broken link \(Too many levels"),
        ("sub/again", "..", r"sub/again is a link back to .*images, which contains it"),
        ("b.png", "../outside/a.png", r"b\.png is a link to .*outside/a\.png, outside .*images\. Give the real folder"),
        (
            "train",
            "../outside",
            r"train is a link to .*outside, outside .*images\. Give the real folder as --data\.root",
        ),
    ],
)
def test_links_that_lead_nowhere_out_or_back_are_named(
    name: str, target: str, message: str, make_images: MakeImages
) -> None:
    make_images("a.png", root="outside")
    root = make_images("a.png", "sub/c.png")
    (root / name).symlink_to(target)
    with pytest.raises(DataError, match=message):
        load_images("folder", root)


def test_two_folders_that_link_to_each_other_are_refused(make_images: MakeImages) -> None:
    root = make_images("x/a.png", "y/b.png")
    (root / "x" / "to_y").symlink_to(root / "y")
    (root / "y" / "to_x").symlink_to(root / "x")
    with pytest.raises(DataError, match=r"x/to_y/to_x is a link back to .*/x, which contains it"):
        load_images("folder", root)


def test_a_pipe_named_as_an_image_is_refused_instead_of_waited_for(make_images: MakeImages) -> None:
    root = make_images("a.png")
    os.mkfifo(root / "b.png")
    with pytest.raises(DataError, match=r"b\.png is named as an image but isn't a file"):
        load_images("folder", root)


@pytest.mark.parametrize(
    ("module", "limit", "message"),
    [
        (preparation, "MAX_PIXELS", "the image is 32x32, beyond the limit"),
        (sources, "MAX_FILE_BYTES", "the file takes"),
        (Image, "MAX_IMAGE_PIXELS", ".*decompression bomb"),  # Pillow's own
    ],
)
def test_an_image_above_a_limit_is_named_before_it_is_decoded(
    module: ModuleType, limit: str, message: str, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_images("a.png")
    monkeypatch.setattr(module, limit, 100)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("was decoded"))
    with pytest.raises(DataError, match=rf"a\.png: {message}"):
        load_images("folder", root)


def test_celeba_images_that_were_cropped_before_are_refused(make_images: MakeImages) -> None:
    with pytest.raises(DataError, match=r"is 64x64, but this data set's are 178x218\. .*--data\.name=folder"):
        load_images("celeba", make_images("a.png", width=64, height=64))


def test_other_images_are_not_taken_for_cifar10(make_images: MakeImages) -> None:
    with pytest.raises(DataError, match=r"is 64x64, but this data set's are 32x32"):
        load_images("cifar10", make_images("a.png", width=64, height=64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cifar"}, r"Unknown data set 'cifar'.*Did you mean 'cifar10'"),
        ({"name": "fashion"}, r"Did you mean 'fashion_mnist'"),
        ({"image_size": 0}, r"--data\.image_size=0"),
        ({"channels": 4}, r"--data\.channels=4"),
        ({"limit": 0}, r"--data\.limit=0"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_images(**arguments)  # type: ignore[arg-type]
