"""The picture of generated images beside their nearest real ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from cs_gan.report import save_neighbours


def noise(*shape):
    return torch.randint(1, 255, shape, dtype=torch.uint8)


@pytest.fixture
def written(monkeypatch):
    """The texts of the picture with their places."""
    found, text = {}, ImageDraw.ImageDraw.text

    def recorded(pen, xy, words, *more):
        found[xy] = words
        return text(pen, xy, words, *more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recorded)
    return found


def place_of(picture, image, scale):
    """(left, top) of an enlarged image in a picture, found pixel by pixel."""
    large = image.permute(1, 2, 0).numpy().repeat(scale, 0).repeat(scale, 1)
    height, width = large.shape[:2]
    for top, left in np.argwhere((picture == large[0, 0]).all(-1)):
        if np.array_equal(picture[top : top + height, left : left + width], large):
            return int(left), int(top)
    raise AssertionError("the image is not there")


@pytest.mark.parametrize(("channels", "size", "scale"), [(3, 64, 1), (1, 16, 4), (3, 90, 1), (3, 40, 1)])
def test_images_stand_apart_from_their_neighbours_with_headings_and_distances(channels, size, scale, tmp_path, written):
    images, neighbours = noise(3, channels, size, size), noise(3, 2, channels, size, size)
    distances = torch.tensor([[1.0, 2.25], [0.0, 31.4], [12.34, 123.4]])
    save_neighbours(tmp_path / "near.png", images, neighbours, distances, "the distance in x", "Nothing is copied.")
    with Image.open(tmp_path / "near.png") as opened:
        picture = np.asarray(opened.convert("RGB"))
    width, said = size * scale, [["1.00", "2.25"], ["0.00", "31.4"], ["12.3", "123"]]
    for row in range(3):
        left, top = place_of(picture, images[row].expand(3, -1, -1), scale)
        first, second = (place_of(picture, image.expand(3, -1, -1), scale) for image in neighbours[row])
        assert first[1] == second[1] == top
        # further from its neighbours than they are from each other
        assert first[0] - left - width > second[0] - first[0] - width > 0
        below = [words for (x, y), words in written.items() if x in (first[0], second[0]) and 0 < y - top - width < 4]
        assert below == said[row]
    assert "generated" in written.values()
    text = " ".join(written.values())
    assert "nearest training images, with the distance in x" in text
    assert "Nothing is copied." in text


def test_no_text_reaches_over_the_edge(tmp_path, written):
    sentence = "A rather long sentence that has to be broken into lines. " * 4
    save_neighbours(
        tmp_path / "near.png", noise(1, 1, 8, 8), noise(1, 1, 1, 8, 8), torch.ones(1, 1), sentence, sentence
    )
    with Image.open(tmp_path / "near.png") as opened:
        picture = np.asarray(opened.convert("L"), dtype=int)
    assert (picture[:, -6:] == 255).all()
    assert (picture[-4:] == 255).all()
