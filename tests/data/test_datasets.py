import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CelebA

from cs_gan.data import load_images, memory
from cs_gan.errors import DataError

MakeImages = Callable[..., Path]
Zipped = Callable[[Path], Path]


def test_digits_are_scaled_to_bytes_and_enlarged() -> None:
    store = load_images("digits")
    assert store.images.shape == (1797, 1, 16, 16)
    assert store.labels is not None
    assert store.labels.tolist() == load_digits().target.tolist()
    assert store.description == "digits (train): 1,797 images, 1x16x16, 0.4 MiB in memory"
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


def test_a_loop_of_links_ends(make_images: MakeImages) -> None:
    root = make_images("sub/a.png", "b.png")
    (root / "sub" / "again").symlink_to(root)
    assert len(load_images("folder", root)) == 2


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
    with pytest.raises(DataError, match="Point TMPDIR at a disk with room"):
        load_images("folder", classes)


def test_available_memory_is_plausible() -> None:
    assert 2**20 < memory.available_memory() < 2**50


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """torchvision's layout with two images a batch; torchvision checks sums, so it is told those of our files."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)

    def dump(name: str, content: dict[str, Any]) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    sums = [
        dump(name, {"data": pixels[2 * i : 2 * i + 2].reshape(2, -1), "labels": [i, 9 - i]})
        for i, name in enumerate(names)
    ]
    meta = dump("batches.meta", {"label_names": [str(i) for i in range(10)]})
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
    every = load_images("celeba", tmp_path / "celeba" / "img_align_celeba").images
    assert torch.equal(load_images("celeba", tmp_path).images, every[[0, 3, 6]])


@pytest.mark.parametrize(("name", "dataset"), [("cifar10", CIFAR10), ("celeba", CelebA)])
def test_a_failed_download_says_how_to_get_the_data(
    name: str, dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(dataset, "download", fail)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for root in (None, "empty"):
        with pytest.raises(DataError, match=r"couldn't be downloaded \(OSError: no network\). Get .*https://"):
            load_images(name, root)


def test_real_cifar10_loads(shared_zip: Callable[[str], Path]) -> None:
    store = load_images("cifar10", shared_zip("cifar10_jpeg.zip"), split="test", limit=1000)
    assert store.images.shape == (1000, 3, 32, 32)
    assert store.labels is not None
    assert store.labels.bincount().tolist() == [100] * 10


def test_real_celeba_loads(shared_zip: Callable[[str], Path]) -> None:
    store = load_images("celeba", shared_zip("celeba_6k.zip"), limit=100)
    assert store.images.shape == (100, 3, 64, 64)
    assert 80 < store.images.float().mean() < 160


def test_real_tiny_imagenet_loads_by_its_official_layout(shared_zip: Callable[[str], Path]) -> None:
    store = load_images("folder", shared_zip("tiny_imagenet_10pct.zip"), limit=400)
    assert store.images.shape == (400, 3, 64, 64)
    assert store.labels is not None
    assert store.labels.bincount().tolist() == [2] * 200
