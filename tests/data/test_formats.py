"""The content of a file decides, and only the documented formats are opened."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cs_gan.data import FORMATS, load_images
from cs_gan.errors import DataError

MakeImages = Callable[..., Path]
Zipped = Callable[[Path], Path]

ROOT = Path(__file__).resolve().parents[2]


def written(format: str) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


@pytest.mark.parametrize(
    ("format", "told"),
    [("PCX", "PCX"), ("GIF", "GIF"), ("EPS", "PostScript"), ("ICO", "an icon"), ("PDF", "PDF"), ("DDS", "DDS")],
)
@pytest.mark.parametrize("packed", [False, True])
def test_other_formats_are_refused_by_name(
    format: str, told: str, packed: bool, make_images: MakeImages, zipped: Zipped
) -> None:
    root = make_images("a.png")
    (root / "b.png").write_bytes(written(format))
    with pytest.raises(DataError, match=rf"b\.png: the file's content is {told}.*PNG.* convert it"):
        load_images("folder", zipped(root) if packed else root)


def test_formats_without_a_signature_are_not_opened_either(make_images: MakeImages) -> None:
    root = make_images("a.png")
    (root / "b.png").write_bytes(written("TGA"))
    with pytest.raises(DataError, match=r"b\.png can't be decoded \(UnidentifiedImageError"):
        load_images("folder", root)


@pytest.mark.parametrize("format", FORMATS)
def test_the_documented_formats_are_read_under_any_ending(format: str, make_images: MakeImages) -> None:
    root = make_images("a.png")
    (root / "a.png").write_bytes(written(format))
    expected = np.asarray(Image.open(io.BytesIO(written(format))).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(load_images("folder", root).images[0], expected)


def test_every_picture_is_opened_with_a_list_of_formats() -> None:
    for path in sorted((ROOT / "cs_gan").rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert "Image.open(" not in line or "formats=" in line, f"{path}:{number}"


def test_the_docs_name_these_formats() -> None:
    text = (ROOT / "docs" / "data.md").read_text()
    assert all({"WEBP": "WebP"}.get(name, name) in text for name in FORMATS)
