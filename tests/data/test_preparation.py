import numpy as np
import pytest
from PIL import Image

from cs_gan.data.preparation import Preparation
from cs_gan.errors import DataError

RNG = np.random.default_rng(0)


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8), mode)


def test_shorter_side_is_resized_then_the_centre_cropped() -> None:
    image = noise(40, 20)
    expected = image.resize((20, 10), Image.Resampling.BILINEAR).crop((5, 0, 15, 10))
    np.testing.assert_array_equal(Preparation(3, 10)(image), np.asarray(expected).transpose(2, 0, 1))


def test_resize_is_antialiased() -> None:
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    result = Preparation(1, 8)(Image.fromarray(stripes))
    assert np.abs(result[0, :, 1:-1].astype(int) - 127).max() <= 2  # without, all 0 or all 255


def test_grey_to_rgb_and_back() -> None:
    grey, colour = noise(4, 4, "L"), noise(4, 4)
    assert (Preparation(3, None)(grey) == np.asarray(grey)).all()
    np.testing.assert_array_equal(Preparation(1, None)(colour)[0], np.asarray(colour.convert("L")))


def test_transparency_is_laid_over_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    result = Preparation(3, None)(image)
    assert result[:, 0, 0].tolist() == [255, 0, 0]
    assert result[:, 0, 1].tolist() == [255, 255, 255]


def test_palette_with_a_transparent_colour() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert Preparation(3, None)(image)[:, 0].T.tolist() == [[10, 20, 30], [40, 50, 60]]
    image.info["transparency"] = 1
    assert Preparation(3, None)(image)[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    image = Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16))
    assert Preparation(1, None)(image)[0, 0].tolist() == [0, 1, 128, 255]


def test_exif_rotation_is_applied() -> None:
    image = noise(6, 4)
    upright = image.transpose(Image.Transpose.ROTATE_270)
    image.getexif()[0x0112] = 6  # "rotate by 90 degrees to show"
    np.testing.assert_array_equal(Preparation(3, None)(image), np.asarray(upright).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("image", "message"),
    [(Image.new("RGB", (1, 500_000)), "64 megapixels"), (Image.new("F", (2, 2)), "floating-point")],
)
def test_images_that_can_not_be_prepared_are_refused(image: Image.Image, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preparation(3, 64)(image)
