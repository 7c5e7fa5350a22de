from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from cs_gan.data import load_images, memory
from cs_gan.errors import DataError

MakeImages = Callable[..., Path]
Zipped = Callable[[Path], Path]


def test_digits_are_scaled_to_bytes_and_enlarged() -> None:
    store = load_images("digits")
    assert store.images.shape == (1797, 1, 16, 16)
    assert store.labels is not None
    assert store.labels.tolist() == load_digits().target.tolist()
    assert store.class_names == tuple("0123456789")
    assert store.description == "digits (train): 1,797 images, 1x16x16, 0.4 MiB in memory, 10 classes (0, 1, 2, ...)"
    native = load_images("digits", image_size=8)
    assert native.images.max() == 255
    np.testing.assert_allclose(native.images[:, 0], load_digits().images * 255 / 16, atol=0.5)


def test_digits_in_colour_have_three_equal_channels() -> None:
    images = load_images("digits", channels=3, limit=10).images
    assert images.shape == (10, 3, 16, 16)
    assert (images == images[:, :1]).all()


def test_digits_have_no_other_split() -> None:
    with pytest.raises(DataError, match="no split 'test'"):
        load_images("digits", split="test")


def test_folder_and_zip_give_identical_stores(classes: Path, zipped: Zipped) -> None:
    folder, archive = load_images("folder", classes), load_images("folder", zipped(classes))
    assert torch.equal(folder.images, archive.images)
    assert folder.labels is not None
    assert archive.labels is not None
    assert folder.labels.tolist() == archive.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert folder.class_names == archive.class_names == ("cat", "dog")
    assert folder.fingerprint == archive.fingerprint


@pytest.mark.parametrize("level", ["itself", "parent", "zip of parent"])
def test_the_split_is_found_below_shared_folders(classes: Path, zipped: Zipped, level: str, tmp_path: Path) -> None:
    root = {"itself": classes, "parent": tmp_path, "zip of parent": tmp_path}[level]
    if level == "zip of parent":
        root = zipped(tmp_path)
    train, test = load_images("cifar10", root), load_images("cifar10", root, split="test")
    assert (len(train), len(test)) == (6, 2)
    expected = [np.asarray(Image.open(classes / "test" / name / "0000.png")) for name in ("cat", "dog")]
    np.testing.assert_array_equal(test.images.permute(0, 2, 3, 1), np.stack(expected))
    assert train.split == "train"
    assert train.fingerprint != test.fingerprint


def test_all_splits_together_keep_the_classes(classes: Path) -> None:
    store = load_images("folder", classes, split="all")
    assert len(store) == 8
    assert store.labels is not None
    assert store.labels.bincount().tolist() == [4, 4]


def test_a_split_that_is_not_there_is_refused(classes: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'valid'. It has: test, train"):
        load_images("folder", classes, split="valid")


def test_a_folder_without_splits_is_read_whole_and_says_so(make_images: MakeImages) -> None:
    store = load_images("folder", make_images("a.png", "deep/er/b.png"))
    assert len(store) == 2
    assert store.split == "all"
    assert store.labels is None
    assert store.description.startswith("folder (all): 2 images, 3x32x32")


def test_order_is_natural_and_rubbish_is_skipped(make_images: MakeImages) -> None:
    root = make_images("10.png", "9.png", "1.PNG", ".hidden.png", "__MACOSX/1.png", ".cache/2.png")
    (root / "notes.txt").write_text("not an image")
    images = load_images("folder", root).images
    expected = [np.asarray(Image.open(root / name)) for name in ("1.PNG", "9.png", "10.png")]
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1), np.stack(expected))


def test_files_of_other_kinds_are_counted_in_the_description(make_images: MakeImages, zipped: Zipped) -> None:
    root = make_images("0.png", "a/1.png")
    assert "left out" not in load_images("folder", root, split="all").description
    for name in ("b.gif", "a/c.GIF", "d.npy", ".hidden.gif", "labels.txt", "README", "Thumbs.db"):
        (root / name).write_bytes(b"x")
    for source in (root, zipped(root)):
        assert "3 files left out (2 .gif, 1 .npy)" in load_images("folder", source, split="all").description


def test_links_inside_the_root_are_followed_and_the_root_may_be_one(make_images: MakeImages, tmp_path: Path) -> None:
    root = make_images("real/a.png", "b.png", ".git/c.png")
    (root / "c.png").symlink_to("b.png")
    (root / "d").symlink_to("real")
    (root / "notes.txt").symlink_to("/etc/hostname")  # not an image, so it may lie anywhere
    (root / ".git" / "d.png").symlink_to("nowhere")  # hidden folders are nobody's data
    (tmp_path / "link").symlink_to(root)
    store = load_images("folder", tmp_path / "link", split="all")
    assert len(store) == 3  # b, c, and a once, though two ways lead there
    assert torch.equal(store.images[0], store.images[1])


def test_numbers_in_names_may_be_long_or_foreign(make_images: MakeImages) -> None:
    root = make_images("\u00b23.png", f"{'9' * 200}.png", f"1{'0' * 200}.png")
    images = load_images("folder", root).images
    expected = [np.asarray(Image.open(root / f"{name}.png")) for name in ("9" * 200, "1" + "0" * 200, "\u00b23")]
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1), np.stack(expected))


def test_limit_keeps_every_class(classes: Path) -> None:
    store = load_images("folder", classes, limit=2)
    assert store.labels is not None
    assert store.labels.tolist() == [0, 1]
    assert len(load_images("folder", classes, limit=100)) == 6


def test_images_of_one_size_need_no_image_size_and_others_do(make_images: MakeImages) -> None:
    root = make_images("a.png", "b.png", width=20, height=12)
    assert load_images("folder", root).image_shape == (3, 12, 20)
    make_images("c.png", width=14, height=12)
    with pytest.raises(DataError, match=r"20x12, .*c.png is 14x12. Give --data.image_size"):
        load_images("folder", root)
    assert load_images("folder", root, image_size=8).image_shape == (3, 8, 8)


def test_celeba_from_a_folder_has_the_one_crop(make_images: MakeImages) -> None:
    root = make_images("img_align_celeba/000001.png", width=178, height=218)
    store = load_images("celeba", root)
    image = Image.open(root / "img_align_celeba" / "000001.png").crop((0, 20, 178, 198))
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(store.images[0], expected)
    assert "centre crop 178" in store.preparation
    # The same pictures under another preparation are another reference.
    plain = load_images("folder", root, image_size=64)
    assert plain.fingerprint != store.fingerprint


def test_channels_change_the_store(make_images: MakeImages) -> None:
    root = make_images("a.png")
    grey = load_images("folder", root, channels=1)
    assert grey.image_shape == (1, 32, 32)
    np.testing.assert_array_equal(grey.images[0, 0], np.asarray(Image.open(root / "a.png").convert("L")))


def test_many_large_images_on_threads_keep_their_order(make_images: MakeImages) -> None:
    root = make_images(*[f"{i}.png" for i in range(150)], width=130, height=130)
    images = load_images("folder", root).images
    expected = [np.asarray(Image.open(root / f"{i}.png")) for i in range(150)]
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1), np.stack(expected))


def test_progress_is_shown_only_when_asked_for(make_images: MakeImages, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_images("a.png")
    load_images("folder", root)
    assert capsys.readouterr().err == ""
    load_images("folder", root, progress=True)
    assert "Decoding images" in capsys.readouterr().err


def test_images_beyond_memory_go_to_a_mapped_file_that_leaves_no_trace(
    classes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = load_images("folder", classes)
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    mapped = load_images("folder", classes)
    assert "in a mapped file" in mapped.description
    assert torch.equal(mapped.images, plain.images)
    assert mapped.fingerprint == plain.fingerprint
    assert torch.equal(mapped.batch([4, 0]), plain.batch([4, 0]))
    assert not list(tmp_path.glob("cs_gan_images_*"))


def test_no_room_for_the_mapped_file_is_told(classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    monkeypatch.setenv("TMPDIR", str(classes / "nowhere"))
    with pytest.raises(DataError, match="Point TMPDIR at a disk with space"):
        load_images("folder", classes)


def test_available_memory_is_plausible() -> None:
    assert 2**20 < memory.available_memory() < 2**50
