"""More than 8 bits, and more than one frame: scaled and said, or refused."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cs_gan.data import corrupted, load_images, split, subset
from cs_gan.errors import DataError

MakeImages = Callable[..., Path]

RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def grey(root: Path, name: str, largest: int, dtype: type = np.uint16) -> Path:
    root.mkdir(exist_ok=True)
    Image.fromarray((RAMP * largest).round().astype(dtype)).save(root / name)
    return root


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bits_are_scaled_and_said(name: str, tmp_path: Path) -> None:
    root = grey(tmp_path / "x", name, 65535)
    store = load_images("folder", root, channels=1)
    np.testing.assert_array_equal(store.images[0, 0], (RAMP * 65535 // 1 / 257).round())
    assert "1 of 16 bits scaled from 0 ... 65,535 (largest 65,535)" in store.description


@pytest.mark.parametrize("largest", [255, 1023, 4095])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_8_to_12_bits_in_16_are_refused(name: str, largest: int, tmp_path: Path) -> None:
    root = grey(tmp_path / "x", name, largest)
    with pytest.raises(DataError, match=rf"{name}: 16 bits .* no value of the 1 such images is above {largest:,},"):
        load_images("folder", root)


def test_one_dark_image_among_others_is_only_dark(tmp_path: Path) -> None:
    grey(tmp_path / "x", "a.png", 3000)
    images = load_images("folder", grey(tmp_path / "x", "b.png", 65535), channels=1).images
    assert images.amax((1, 2, 3)).tolist() == [12, 255]
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "x" / "c.png")
    assert len(load_images("folder", tmp_path / "x")) == 3


def png(pixels: np.ndarray, colour: int) -> bytes:  # (H, W, C) uint16; Pillow writes no colours of 16 bits
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4), (4, 2)])
@pytest.mark.parametrize("largest", [255, 4095, 65535])
def test_colours_of_16_bits_are_treated_alike(largest: int, colour: int, channels: int, tmp_path: Path) -> None:
    pixels = np.repeat((RAMP * largest).astype(np.uint16)[..., None], channels, 2)
    if channels % 2 == 0:
        pixels[..., -1] = 65535  # opaque
    (tmp_path / "a.png").write_bytes(png(pixels, colour))
    if largest <= 4095:
        with pytest.raises(DataError, match=r"12 bits or fewer and would become nearly black"):
            load_images("folder", tmp_path)
    else:
        assert "1 of 16 bits scaled" in load_images("folder", tmp_path).description


def test_a_stated_largest_value_is_used(tmp_path: Path) -> None:
    rows = (RAMP * 4095).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 8 8 4095\n" + rows.tobytes())
    assert load_images("folder", tmp_path, channels=1).images.max() == 255


@pytest.mark.parametrize("values", [(0, 255), (-1024, 3071), (0, 2**31 - 1)])
def test_integers_of_unknown_range_are_refused(values: tuple[int, int], tmp_path: Path) -> None:
    pixels = (values[0] + RAMP * (values[1] - values[0])).astype(np.int32)
    Image.fromarray(pixels).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"a\.tiff: the image has signed or 32-bit integers .* black and white are"):
        load_images("folder", tmp_path)


def test_16_bits_whose_0_is_white_are_refused(tmp_path: Path) -> None:
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as image:
        if image.tag_v2[262] != 0:
            pytest.skip("this Pillow writes no such file")
    with pytest.raises(DataError, match="whose 0 is white"):
        load_images("folder", tmp_path)


@pytest.mark.parametrize("name", ["a.tiff", "a.webp", "a.png"])
def test_only_the_first_frame_is_read_and_that_is_said(name: str, make_images: MakeImages) -> None:
    root = make_images("b.png")
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("white", "black")]
    frames[0].save(root / name, save_all=True, append_images=frames[1:], lossless=True)
    store = load_images("folder", root)
    assert store.images[0].min() == 255
    assert "only the first frame or page of 1 files with several" in store.description


def test_usual_images_say_nothing(make_images: MakeImages) -> None:
    root = make_images("a.png", "b.jpg", "c.bmp", "d.webp", "e.ppm", "f.tif")
    assert load_images("folder", root).description == "folder (all): 6 images, 3x32x32, 0.0 MiB in memory"


def test_parts_of_a_store_say_what_the_whole_says(tmp_path: Path) -> None:
    for label in "ab":
        for i in range(4):
            grey(tmp_path / label, f"{i}.png", 65535)
    (tmp_path / "a" / "b.gif").write_bytes(b"x")
    store = load_images("folder", tmp_path)
    told = r", 1 file left out (1 .gif), 8 of 16 bits scaled from 0 ... 65,535 (largest 65,535)"
    assert f"(all{told}): 8 images" in store.description
    parts = [*split(store, 2, seed=0), subset(store, 4, seed=0), corrupted(store, "contrast", 1)]
    assert all(f"{told}): " in part.description for part in parts)
    assert "2 of 8 drawn by class by seed 1" in load_images("folder", tmp_path, limit=2, limit_seed=1).description


def test_big_endian_tiffs_are_read_alike(tmp_path: Path) -> None:
    pixels = (RAMP * 65535).astype(">u2")
    short = [(256, 8), (257, 8), (258, 16), (259, 1), (262, 1), (277, 1), (278, 8)]  # width, height, bits, ...
    start = 8 + 2 + 12 * (len(short) + 2) + 4
    entries = [(tag, struct.pack(">HHIHH", tag, 3, 1, value, 0)) for tag, value in short]
    entries += [(tag, struct.pack(">HHII", tag, 4, 1, value)) for tag, value in ((273, start), (279, 128))]
    table = b"".join(entry for _, entry in sorted(entries))
    head = b"MM\0*" + struct.pack(">IH", 8, len(entries)) + table + bytes(4)
    (tmp_path / "a.tif").write_bytes(head + pixels.tobytes())
    store = load_images("folder", tmp_path, channels=1)
    np.testing.assert_array_equal(store.images[0, 0], (pixels / 257).round())
    assert "1 of 16 bits scaled" in store.description


@pytest.mark.parametrize("largest", [1, 16, 31])
def test_8_bits_of_few_grey_levels_are_refused(largest: int, tmp_path: Path) -> None:
    """As masks of 0 and 1 and scikit-learn's digits of 0 to 16 are: they would be nearly black."""
    root = grey(tmp_path / "x", "a.png", largest, np.uint8)
    with pytest.raises(DataError, match=rf"a\.png: no value of these images is above {largest}, where 255 is white"):
        load_images("folder", root)
    rows = (RAMP * largest).round().astype(np.uint8)
    np.savez(tmp_path / "a.npz", x=np.stack([rows, rows]))
    with pytest.raises(DataError, match=r"Scale them to 0 \.\.\. 255"):
        load_images("folder", tmp_path / "a.npz")
    grey(root, "b.png", 32, np.uint8)  # one brighter picture is enough
    assert load_images("folder", root).images.max() == 32
