import numpy as np
import pytest
import torch
from PIL import Image

from cs_gan.report import save_grid


def pictures(count, channels, height, width):
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8)


def pasted(images, columns, scale):
    """The grid pixel by pixel: (H, W, C)."""
    count, channels, height, width = images.shape
    rows, high, wide = count // columns, height * scale + 3, width * scale + 3  # a gap of 3 between images
    grid = np.zeros((rows * high - 3, columns * wide - 3, channels), np.uint8)
    for y in range(grid.shape[0]):
        for x in range(grid.shape[1]):
            across = y % high - height * scale if y % high >= height * scale else x % wide - width * scale
            grid[y, x] = 200 if across == 1 else 16
    for index, image in enumerate(images.numpy()):
        top, left = index // columns * high, index % columns * wide
        for y in range(height * scale):
            for x in range(width * scale):
                grid[top + y, left + x] = image[:, y // scale, x // scale]
    return grid


def read(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture), picture.mode


class TestSaveGrid:
    # 64 pixels and more are shown as they are, smaller ones at the largest factor that stays within 64.
    @pytest.mark.parametrize(
        ("size", "scale"), [((64, 64), 1), ((33, 33), 1), ((24, 16), 4), ((32, 32), 2), ((16, 16), 4), ((40, 70), 1)]
    )
    @pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
    def test_puts_every_pixel_in_its_place(self, size, scale, channels, mode, tmp_path):
        images = pictures(6, channels, *size)
        save_grid(tmp_path / "grid.png", images, columns=3)
        found, found_mode = read(tmp_path / "grid.png")
        assert found_mode == mode
        np.testing.assert_array_equal(found.reshape(*found.shape[:2], channels), pasted(images, 3, scale))

    @pytest.mark.parametrize(("count", "shape"), [(1, (64, 64)), (9, (198, 198)), (6, (198, 131)), (64, (533, 533))])
    def test_is_square_by_default_where_it_can_be(self, count, shape, tmp_path):
        save_grid(tmp_path / "grid.png", pictures(count, 1, 64, 64))
        assert read(tmp_path / "grid.png")[0].shape == shape

    def test_memory_layout_does_not_matter(self, tmp_path):
        images = pictures(4, 3, 64, 64)
        for name, given in (("a", images), ("b", images.contiguous(memory_format=torch.channels_last))):
            save_grid(tmp_path / f"{name}.png", given)
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

    @pytest.mark.parametrize(("count", "columns"), [(7, 3), (5, None), (3, 4)])
    def test_refuses_a_ragged_grid_and_writes_nothing(self, count, columns, tmp_path):
        with pytest.raises(ValueError, match=f"{count} images don't fill rows of"):
            save_grid(tmp_path / "grid.png", pictures(count, 3, 8, 8), columns)
        assert list(tmp_path.iterdir()) == []

    def test_replaces_the_grid_before_and_leaves_no_partial_file(self, tmp_path):
        path = tmp_path / "grid.png"
        save_grid(path, pictures(4, 3, 64, 64))
        images = pictures(4, 3, 64, 64)
        save_grid(path, images)
        assert list(tmp_path.iterdir()) == [path]
        np.testing.assert_array_equal(read(path)[0], pasted(images, 2, 1))


@pytest.mark.parametrize("grey", [0, 16, 64, 108, 128, 165, 200, 255])
def test_the_gap_shows_on_images_of_any_grey(grey, tmp_path):
    save_grid(tmp_path / "grid.png", torch.full((4, 1, 64, 64), grey, dtype=torch.uint8))
    found = read(tmp_path / "grid.png")[0].astype(int)
    for gap in (found[:64, 64:67], found[64:67, :64].T):
        # 92 is half the distance between the two greys of the gap.
        assert (abs(gap - grey).max(axis=1) >= 92).all()


def test_the_gap_shows_on_middle_grey_in_a_picture_at_a_third_of_its_size(tmp_path):
    save_grid(tmp_path / "grid.png", torch.full((4, 1, 64, 64), 128, dtype=torch.uint8))
    with Image.open(tmp_path / "grid.png") as picture:
        small = np.asarray(picture.reduce(3), dtype=int)  # means of 3 x 3 pixels, at best and at worst on the gap
    assert abs(small[:16] - 128).max(axis=1).min() >= 10


def test_facts_are_kept_inside_the_file(tmp_path):
    save_grid(tmp_path / "grid.png", pictures(4, 3, 8, 8), about={"step": "500"})
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.info["step"] == "500"


def test_copies_hold_the_same_bytes(tmp_path):
    copies = [tmp_path / "one.png", tmp_path / "two.png"]
    save_grid(tmp_path / "grid.png", pictures(4, 3, 8, 8), copies=copies)
    assert {path.read_bytes() for path in copies} == {(tmp_path / "grid.png").read_bytes()}
    assert {path.name for path in tmp_path.iterdir()} == {"grid.png", "one.png", "two.png"}
