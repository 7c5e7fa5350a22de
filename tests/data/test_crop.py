"""The random crop: padded by black, every place alike often, keyed as the flip is."""

from typing import Any

import pytest
import torch
from torch.nn.functional import pad

from cs_gan.data import ImageStore
from cs_gan.errors import DataError


@pytest.fixture
def store() -> ImageStore:
    images = torch.randint(1, 256, (40, 3, 6, 7), dtype=torch.uint8)
    return ImageStore(images, None, "x", "x")


def place(store: ImageStore, index: int, cropped: torch.Tensor, crop: int) -> tuple[int, int]:
    """Where in the padded image, by comparison with every window."""
    padded = pad(store.batch([index])[0], [crop] * 4, value=-1)
    _, height, width = store.image_shape
    found = [
        (top, left)
        for top in range(2 * crop + 1)
        for left in range(2 * crop + 1)
        if torch.equal(padded[:, top : top + height, left : left + width], cropped)
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("crop", [1, 2])
def test_a_crop_is_a_window_of_the_image_in_black_and_all_come(crop: int, store: ImageStore) -> None:
    indices = [i for i in range(40) for _ in range(20)]
    batch = store.batch(indices, augmentation=(0, 0), crop=crop)
    places = [place(store, i, image, crop) for i, image in zip(indices, batch, strict=True)]
    counts = torch.tensor([places.count((t, l)) for t in range(2 * crop + 1) for l in range(2 * crop + 1)])  # noqa: E741
    expected = 800 / (2 * crop + 1) ** 2
    assert ((counts - expected).abs() < 5 * expected**0.5).all()


def test_a_crop_goes_with_the_other_draws_and_moves_none_of_them(store: ImageStore) -> None:
    def draw(**how: Any) -> torch.Tensor:
        return store.batch(range(40), augmentation=(1, 2), **how)

    cropped, both = draw(crop=2), draw(crop=2, flip=True)
    assert not torch.equal(store.batch(range(40), augmentation=(1, 3), crop=2), cropped)
    flipped = (draw(flip=True) != draw()).flatten(1).any(1)
    assert torch.equal(both[~flipped], cropped[~flipped])
    mirrored = ImageStore(store.images.flip(-1), None, "x", "x").batch(range(40), augmentation=(1, 2), crop=2)
    assert torch.equal(both[flipped], mirrored[flipped])
    noise = draw(dequantize=True) - draw()
    torch.testing.assert_close(draw(crop=2, dequantize=True) - cropped, noise, rtol=0, atol=1e-6)


def test_impossible_crops_are_refused(store: ImageStore) -> None:
    with pytest.raises(DataError, match=r"crop=-1\): give the pixels to pad by"):
        store.batch([0], crop=-1)
    with pytest.raises(DataError, match=r"crop=4, .* draws, so it needs a key"):
        store.batch([0], crop=4)
