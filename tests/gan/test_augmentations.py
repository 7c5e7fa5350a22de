"""DiffAugment against a loop over images and pixels, written from the paper."""

import pytest
import torch

from cs_gan.gan import DIFF_AUGMENT, diff_augment, mixed_images
from cs_gan.gan.augmentations import coloured, cut_out, flipped, translated
from cs_gan.randomness import derive_seed

CLOSE = {"rtol": 1e-5, "atol": 1e-6}
KEY = torch.tensor(derive_seed(0, "test"))


def naive_colour(image, brightness, saturation, contrast):
    image = image + brightness - 0.5
    grey = image.mean(0, keepdim=True)
    image = grey + (image - grey) * 2 * saturation
    mean = image.mean()
    return mean + (image - mean) * (contrast + 0.5)


def naive_translation(image, down, right):
    """Pixel (i, j) of the result is pixel (i + down, j + right), and 0 beyond the edge."""
    moved, (height, width) = torch.zeros_like(image), image.shape[1:]
    for i in range(height):
        for j in range(width):
            if 0 <= i + down < height and 0 <= j + right < width:
                moved[:, i, j] = image[:, i + down, j + right]
    return moved


def test_colour_is_brightness_saturation_and_contrast_of_each_image():
    x, u = torch.randn(5, 3, 4, 4), torch.rand(5, 3)
    expected = torch.stack([naive_colour(image, *draw.tolist()) for image, draw in zip(x, u, strict=True)])
    torch.testing.assert_close(coloured(x, u), expected, **CLOSE)


@pytest.mark.parametrize("size", [(16, 16), (8, 12)])
def test_translation_moves_by_up_to_an_eighth_of_each_side(size):
    x, u = torch.randn(40, 2, *size), torch.rand(40, 2)
    most = [int(side / 8 + 0.5) for side in size]
    by = [[int(u[n, i] * (2 * most[i] + 1)) - most[i] for i in (0, 1)] for n in range(40)]
    assert {down for down, _ in by} == set(range(-most[0], most[0] + 1))  # all places are drawn
    expected = torch.stack([naive_translation(image, *move) for image, move in zip(x, by, strict=True)])
    assert torch.equal(translated(x, u), expected)


def test_cutout_blanks_a_square_of_half_the_side_around_a_pixel():
    x, u = torch.ones(60, 1, 8, 8), torch.rand(60, 2)
    result = cut_out(x, u)
    for image, (v, w) in zip(result, u.tolist(), strict=True):
        expected = torch.ones(8, 8)
        top, left = int(v * 9) - 2, int(w * 9) - 2  # 9 places, since the square's side is even
        expected[max(0, top) : max(0, top + 4), max(0, left) : max(0, left + 4)] = 0
        assert torch.equal(image[0], expected)
    assert 0.05 < (result == 0).float().mean() < 0.25  # a quarter of the image where it is whole


def test_flip_mirrors_about_half_of_the_images():
    x, u = torch.randn(64, 3, 4, 4), torch.rand(64, 1)
    result = flipped(x, u)
    for image, before, v in zip(result, x, u, strict=True):
        assert torch.equal(image, before.flip(2) if v < 0.5 else before)


def test_each_image_and_each_key_draw_for_themselves():
    x = torch.randn(1, 3, 16, 16).expand(4, -1, -1, -1)
    first, again, other = (diff_augment(x, key) for key in (KEY, KEY, KEY + 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_the_order_is_that_of_the_policy_and_none_is_nothing():
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(diff_augment(x, KEY, []), x)
    assert not torch.equal(diff_augment(x, KEY, ["cutout", "color"]), diff_augment(x, KEY, ["color", "cutout"]))


@pytest.mark.parametrize("policy", [["color"], ["translation"], ["cutout"], DIFF_AUGMENT])
def test_gradients_of_both_orders_are_right(policy):
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: diff_augment(x, KEY, policy), x)
    assert torch.autograd.gradgradcheck(lambda x: diff_augment(x, KEY, policy) ** 2, x)


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"'rotation' is unknown\. Choose from color, translation, cutout"):
        diff_augment(torch.zeros(1, 3, 4, 4), KEY, ["rotation"])


def test_mixed_images_are_shares_of_an_image_and_its_predecessor():
    x = torch.arange(3.0).view(3, 1)
    assert mixed_images(x, 0.75).flatten().tolist() == [0.5, 0.75, 1.75]
