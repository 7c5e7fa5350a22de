"""NumPy's npz and WebDataset's tars: what is read, and what is refused. Parquet is in test_parquet.py."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cs_gan.data import load_images
from cs_gan.errors import DataError
from tests.data.packed import Pixels, png, random_images, write_parquet, write_tar

TRAIN, TEST = random_images(4, seed=1), random_images(2, seed=2)
GREY = TRAIN[..., 0]


def as_store(pixels: Pixels) -> Pixels:  # (n, H, W, 3) -> (n, 3, H, W)
    return pixels.transpose(0, 3, 1, 2)


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("images", "labels"),
    [("arr_0", "arr_1"), ("images", "labels"), ("x", "y"), ("data", "target")],
)
def test_the_usual_names_of_arrays_are_images_and_labels(images: str, labels: str, tmp_path: Path) -> None:
    saved(tmp_path / "a.npz", **{images: TRAIN, labels: np.array([2, 0, 1, 1])})
    for root in (tmp_path, tmp_path / "a.npz"):
        store = load_images("folder", root)
        np.testing.assert_array_equal(store.images, as_store(TRAIN))
        assert store.labels is not None
        assert store.labels.tolist() == [2, 0, 1, 1]
        assert store.split == "all"
    saved(tmp_path / "a.npz", **{images: TRAIN})
    assert load_images("folder", tmp_path).labels is None


@pytest.mark.parametrize(
    "names", [("x_train", "y_train"), ("train_images", "train_labels"), ("images_train", "label_train")]
)
def test_a_split_in_the_arrays_names_is_the_split(names: tuple[str, str], tmp_path: Path) -> None:
    arrays = {names[0]: TRAIN, names[1]: np.zeros((4, 1), np.uint8)}  # MedMNIST's labels are (n, 1)
    tests = {names[0].replace("train", "test"): TEST, names[1].replace("train", "test"): np.array([1, 0])}
    saved(tmp_path / "a.npz", **arrays, **tests)
    for split, pixels, labels in (("train", TRAIN, [0, 0, 0, 0]), ("test", TEST, [1, 0])):
        store = load_images("folder", tmp_path, split=split)
        np.testing.assert_array_equal(store.images, as_store(pixels))
        assert store.labels is not None
        assert store.labels.tolist() == labels
        assert store.split == split


def test_a_split_in_the_names_of_npz_files_is_the_split(tmp_path: Path) -> None:
    saved(tmp_path / "train.npz", arr_0=TRAIN)
    saved(tmp_path / "test.npz", arr_0=TEST)
    assert len(load_images("folder", tmp_path)) == 4
    assert len(load_images("folder", tmp_path, split="test")) == 2


def test_arrays_of_grey_images_and_of_channels_first_are_read(tmp_path: Path) -> None:
    for pixels in (GREY, GREY[..., None]):
        store = load_images("folder", saved(tmp_path / "a.npz", images=pixels), channels=1)
        np.testing.assert_array_equal(store.images[:, 0], GREY)
    store = load_images("folder", saved(tmp_path / "a.npz", images=as_store(TRAIN)))
    np.testing.assert_array_equal(store.images, as_store(TRAIN))
    assert "images has its channels first" in store.description


def test_labels_that_are_no_classes_are_said(tmp_path: Path) -> None:
    store = load_images("folder", saved(tmp_path / "a.npz", images=TRAIN, labels=np.zeros((4, 14), np.int64)))
    assert store.labels is None
    assert "labels (int64, 4x14) holds no classes" in store.description


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": GREY}, r"no array of images under a known name\. It has: features\. Call it arr_0"),
        ({"images": TRAIN / 255}, r"images is float64, so black and white are unknown\. Save it as uint8"),
        ({"images": TRAIN[0, 0]}, r"images has the shape 8x3\. Images are"),
        ({"images": np.zeros((2, 5, 8, 8), np.uint8)}, r"images has the shape 2x5x8x8\. Images are"),
        ({"images": TRAIN[:0]}, "images is empty, 0x8x8x3"),
        ({"images": TRAIN, "labels": [1, 2]}, "images has 4 images, but labels 2 labels"),
        ({"images": TRAIN, "labels": [0, 1, 2, -5]}, "Labels out of range: image 3 has label -5"),
        ({"images": np.array([TRAIN[0], None, 1, 2], dtype=object)}, "holds pickled objects, which are never loaded"),
        ({"images": np.zeros((2000, 64, 64), np.uint8)}, r"array images unpacks .* a zip bomb does\. Save it again"),
    ],
)
def test_npz_without_images_is_refused_and_says_why(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=rf"a\.npz.*{message}|{message}"):
        load_images("folder", tmp_path)


def test_a_pickle_in_an_npz_never_runs(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    saved(tmp_path / "a.npz", images=np.array([Touch()], dtype=object))
    with pytest.raises(DataError, match="never loaded"):
        load_images("folder", tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("cut", [0, 10, 200, -30])
def test_a_truncated_npz_is_refused(cut: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", images=TRAIN)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.npz can't be read as npz .*Get it again"):
        load_images("folder", tmp_path)


def test_a_damaged_array_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", images=TRAIN)
    content = bytearray(path.read_bytes())
    content[250:260] = bytes(10)  # pixels, so zipfile's sum fails
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz, array images, can't be read as npz"):
        load_images("folder", tmp_path)


def webdataset(pixels: Pixels, start: int = 0, **sidecars: list[bytes]) -> dict[str, bytes]:
    files = {}
    for i, image in enumerate(pixels):
        files[f"{start + i:06}.png"] = png(image)
        files |= {f"{start + i:06}.{ending}": contents[i] for ending, contents in sidecars.items()}
    return files


CLS = {"cls": [b"1", b"0\n", b"2", b"1"]}
JSON = {"json": [json.dumps({"label": label, "width": 8}).encode() for label in (1, 0, 2, 1)]}
WORDS = {"cls": [b"b", b"a", b"c", b"b"]}


@pytest.mark.parametrize("sidecars", [CLS, JSON, CLS | {"json": [b"{}"] * 4}, WORDS, CLS | {"txt": [b"a caption"] * 4}])
def test_a_webdataset_gives_images_and_labels(sidecars: dict[str, list[bytes]], tmp_path: Path) -> None:
    write_tar(tmp_path / "000.tar", webdataset(TRAIN, **sidecars))
    for root in (tmp_path, tmp_path / "000.tar"):
        store = load_images("folder", root)
        np.testing.assert_array_equal(store.images, as_store(TRAIN))
        assert store.labels is not None
        assert store.labels.tolist() == [1, 0, 2, 1]
        assert store.class_names == (tuple("abc") if sidecars is WORDS else tuple("012"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["000.tar"]  # nothing is unpacked


def test_several_tars_are_one_data_set_in_natural_order(tmp_path: Path) -> None:
    write_tar(tmp_path / "mine-train-10.tar", webdataset(TRAIN[2:], 2, cls=[b"9", b"10"]))
    write_tar(tmp_path / "mine-train-9.tar", webdataset(TRAIN[:2], cls=[b"1", b"2"]))
    write_tar(tmp_path / "mine-val-0.tar", webdataset(TEST, cls=[b"0", b"0"]))
    store = load_images("folder", tmp_path)
    np.testing.assert_array_equal(store.images, as_store(TRAIN))
    assert store.labels is not None
    assert store.labels.tolist() == [1, 2, 9, 10]
    assert "(train, 2 tar files)" in store.description
    assert "which stands for test" in load_images("folder", tmp_path, split="test").description


def test_a_tar_without_labels_is_a_flat_list_of_images(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", webdataset(TRAIN) | {"./._000000.png": b"x", ".DS_Store": b"x"})
    assert load_images("folder", tmp_path).labels is None
    assert len(load_images("folder", tmp_path)) == 4


IMAGE = png(TRAIN[0])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": b"x"}, r"a\.tar holds no images"),
        ({"a.left.png": IMAGE, "a.right.png": IMAGE}, r"a\.right\.png and a\.left\.png are two images of one sample"),
        ({"cat/0.png": IMAGE, "dog/0.png": IMAGE}, r"several folders and no labels .* Unpack it with tar -xf"),
        ({"a.png": IMAGE, "a.cls": b"1", "b.png": IMAGE}, "image 1 has the label None, and image 0 has 1"),
        ({"a.png": IMAGE, "a.json": b"{"}, r"the \.json of a\.png can't be read"),
        ({"a.png": IMAGE, "a.cls": b"\xff"}, r"the \.cls of a\.png can't be read"),
        ({"a.png": IMAGE, "a.json": b"[" * 5000}, r"the \.json of a\.png can't be read"),
        ({"a.png": IMAGE, "a.cls": bytes(2**20 + 1)}, "takes 1,048,577 bytes, too many for a label"),
        ({"a.png": b""}, r"a\.tar: a\.png: the file is empty"),
        ({"a.png": b"GIF89a"}, r"a\.tar: a\.png: the file's content is GIF"),
        ({"a.png": IMAGE[:40]}, r"a\.tar: a\.png can't be decoded"),
    ],
)
def test_a_tar_that_is_no_webdataset_is_refused(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", files)
    with pytest.raises(DataError, match=message):
        load_images("folder", tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(IMAGE)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("a.png")
        member.type, member.linkname = kind, str(tmp_path / "secret.png")
        archive.addfile(member)
    with pytest.raises(DataError, match=r"a\.png is a link, a device or sparse"):
        load_images("folder", tmp_path / "a.tar")


def test_names_that_lead_outside_are_only_names(tmp_path: Path) -> None:
    root = tmp_path / "in"
    write_tar(root / "a.tar", {"/tmp/x.png": IMAGE, "/tmp/x.cls": b"3", "../../y.png": IMAGE})
    assert len(load_images("folder", root)) == 1  # ".." counts as a hidden folder
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar", "in"]


@pytest.mark.parametrize("cut", [0, 100, 700, 512 * 5, 512 * 6, -1])
def test_a_truncated_tar_is_refused(cut: int, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", webdataset(TRAIN))
    size = 512 * (8 + 1) if cut == -1 else cut  # four images of a block each with a header each, and one block of two
    path.write_bytes(path.read_bytes()[: size - 1 if cut == -1 else size])
    with pytest.raises(DataError, match=r"a\.tar (can't be read as a tar|is truncated|is damaged)"):
        load_images("folder", tmp_path)


def test_a_broken_header_inside_a_tar_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", webdataset(TRAIN))
    content = bytearray(path.read_bytes())
    content[1024:1124] = b"\xff" * 100  # the second header; tarfile would stop there without a word
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged after byte 1,024|can't be read as a tar"):
        load_images("folder", tmp_path)


def test_a_packed_tar_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "b.tar", webdataset(TRAIN))
    (tmp_path / "a.tar").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=r"a\.tar can't be read as a tar .* It is packed.*tar -xf"):
        load_images("folder", tmp_path / "a.tar")


def test_two_kinds_in_one_folder_are_refused_and_images_beside_win(tmp_path: Path) -> None:
    saved(tmp_path / "a.npz", images=TRAIN)
    write_parquet(tmp_path / "b.parquet", TEST)
    with pytest.raises(DataError, match="holds npz and Parquet files, so it is unclear which to read"):
        load_images("folder", tmp_path)
    (tmp_path / "c.png").write_bytes(IMAGE)
    store = load_images("folder", tmp_path)
    assert len(store) == 1
    assert "2 files left out (1 .npz, 1 .parquet)" in store.description


def test_labels_of_only_some_files_are_left_out_and_said(tmp_path: Path) -> None:
    saved(tmp_path / "a.npz", images=TRAIN, labels=[0, 1, 0, 1])
    saved(tmp_path / "b.npz", images=TEST)
    store = load_images("folder", tmp_path)
    assert store.labels is None
    assert "no labels, because some files have none" in store.description


def test_npz_of_another_zip_method_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, TRAIN)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("images.npy", file.getvalue())
    with pytest.raises(DataError, match=r"array images is packed by method 14\. Save it again with np\.savez"):
        load_images("folder", tmp_path)
