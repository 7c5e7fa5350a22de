"""Zips are read in place; an entry that could mislead or flood the reader is refused by name."""

import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cs_gan.data import load_images
from cs_gan.errors import DataError

MakeImages = Callable[..., Path]
Zipped = Callable[[Path], Path]


@pytest.fixture
def png(make_images: MakeImages) -> bytes:
    return (make_images("a.png") / "a.png").read_bytes()


def patch(path: Path, *, header: bytes, offset: int, value: bytes) -> None:
    """Overwrite bytes at an offset from every occurrence of a header's signature."""
    content = bytearray(path.read_bytes())
    start = content.find(header)
    while start >= 0:
        content[start + offset : start + offset + len(value)] = value
        start = content.find(header, start + 4)
    path.write_bytes(content)


LOCAL, CENTRAL = b"PK\3\4", b"PK\1\2"  # signatures in front of an entry and of its line in the directory


def test_an_empty_zip_says_what_was_looked_for(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("__MACOSX/._a.png", b"x")
    with pytest.raises(DataError, match="holds no images"):
        load_images("folder", tmp_path / "a.zip")


def test_a_zip_cut_in_the_middle_is_named(make_images: MakeImages, zipped: Zipped) -> None:
    archive = zipped(make_images("a.png", "b.png"))
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        DataError, match=r"images\.zip can't be read as a zip .* truncated or damaged\. Download it again"
    ):
        load_images("folder", archive)


def test_a_zip_with_a_hole_in_it_names_an_entry(make_images: MakeImages, zipped: Zipped) -> None:
    archive = zipped(make_images("a.png", "b.png", "c.png"))
    content = archive.read_bytes()
    archive.write_bytes(content[:1000] + content[2000:])  # the directory at the end is whole
    with pytest.raises(DataError, match=r"entry [abc]\.png can't be decoded"):
        load_images("folder", archive)


def test_a_damaged_zip_entry_is_named(make_images: MakeImages, zipped: Zipped) -> None:
    archive = zipped(make_images("a.png", "b.png"))
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        offset = opened.getinfo("b.png").header_offset
    content[offset + 200] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"entry b\.png can't be decoded \(BadZipFile"):
        load_images("folder", archive)


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "c:x.png", r"train\\x.png"])
@pytest.mark.parametrize("rest", ["", ".txt", "/"])
def test_entries_with_path_tricks_are_named(name: str, rest: str, png: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("fine.png", png)
        archive.writestr(name + rest, b"" if rest == "/" else png)
    with pytest.raises(DataError) as caught:
        load_images("folder", tmp_path / "a.zip")
    assert f"entry {name}{rest} isn't a plain relative path" in str(caught.value)


def test_a_name_with_a_nul_is_refused(png: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png_x", png)
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"a.png_x", b"a.png\0x"))
    with pytest.raises(DataError, match=r"entry a\.png isn't a plain relative path"):
        load_images("folder", tmp_path / "a.zip")


def test_plain_paths_with_dots_and_colons_are_fine(png: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("./train/..a.png", "./train/b..png", "./train/at 12:30.png", "train//c.png"):
            archive.writestr(name.replace("..a", "a.."), png)
    assert len(load_images("folder", tmp_path / "a.zip")) == 4


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("faces/a.png", stat.S_IFLNK, "is a symbolic link"),
        ("train", stat.S_IFLNK, "is a symbolic link"),
        ("faces/a.png", stat.S_IFIFO, "is neither a file nor a folder"),
    ],
)
def test_links_and_special_files_are_named(name: str, kind: int, message: str, png: bytes, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.png", png)
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(DataError, match=f"entry {name} {message}"):
        load_images("folder", tmp_path / "a.zip")


@pytest.mark.parametrize("again", ["x/a.png", "x//a.png", "./x/a.png"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(again: str, png: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/a.png", png)
        archive.writestr(again, png)
    with pytest.raises(DataError, match=r"a\.png occurs twice"):
        load_images("folder", tmp_path / "a.zip")


def test_an_encrypted_entry_is_named(make_images: MakeImages, zipped: Zipped) -> None:
    archive = zipped(make_images("a.png"))
    patch(archive, header=LOCAL, offset=6, value=b"\1\0")
    patch(archive, header=CENTRAL, offset=8, value=b"\1\0")
    with pytest.raises(DataError, match=r"entry a\.png is encrypted. Unpack the zip with its password"):
        load_images("folder", archive)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packing_without_a_bound_is_refused(method: int, png: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.png", png)
    with pytest.raises(DataError, match=rf"entry a\.png is packed by method {method}. Zip the images again"):
        load_images("folder", tmp_path / "a.zip")


def test_a_bomb_is_known_by_its_ratio(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(4 * 2**20))
    with pytest.raises(DataError, match=r"entry a\.png unpacks from 4,\d+ to 4,194,304 bytes, as a zip bomb does"):
        load_images("folder", tmp_path / "a.zip")


def test_a_size_above_the_limit_is_refused_before_it_is_read(
    make_images: MakeImages, zipped: Zipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped(make_images("a.png"))
    monkeypatch.setattr("cs_gan.data.sources.MAX_FILE_BYTES", 100)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("was read"))
    with pytest.raises(DataError, match=r"entry a\.png: the file takes"):
        load_images("folder", archive)


def test_a_bomb_that_lies_about_its_size_is_not_unpacked_beyond_it(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(64 * 2**20))
    patch(path, header=LOCAL, offset=22, value=struct.pack("<I", 1000))
    patch(path, header=CENTRAL, offset=24, value=struct.pack("<I", 1000))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"entry a\.png can't be decoded \(BadZipFile"):
            load_images("folder", path)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
