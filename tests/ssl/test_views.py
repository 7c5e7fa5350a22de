import math

import pytest
import torch

from cs_gan.randomness import derive_seed
from cs_gan.ssl import Views

SIMCLR = Views(crop_scale=0.2, crop_ratio=4 / 3, turn=10, flip=True, jitter=0.5, grey=0.2, noise=0.05)
KEYS = torch.tensor([derive_seed("a"), derive_seed("b")])


def images(count=6, channels=3, size=12):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_views_that_draw_nothing_are_the_images():
    x = images()
    # Bilinear sampling at the centres of pixels that lie in [0, 1], in float32.
    torch.testing.assert_close(Views()(x, KEYS), torch.cat([x, x]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_a_function_of_images_and_keys_and_differ_between_keys(channels):
    x = images(channels=channels)
    views = SIMCLR(x, KEYS)
    assert views.shape == (12, channels, 12, 12)
    assert torch.equal(views, SIMCLR(x, KEYS))
    assert torch.equal(views[6:], SIMCLR(x, KEYS[1:]))
    assert not torch.equal(views[:6], views[6:])


def test_views_without_noise_stay_in_range():
    views = Views(crop_scale=0.2, crop_ratio=4 / 3, turn=45, flip=True, jitter=1.0, grey=0.5)(images(64), KEYS)
    assert views.min() >= -1 - 1e-5
    assert views.max() <= 1 + 1e-5


def test_flips_mirror_half_of_the_views_and_change_nothing_else():
    x = images(400, 1, 4)
    views = Views(flip=True)(x, KEYS[:1])
    same, mirrored = ((views - other).abs().amax((1, 2, 3)) < 1e-5 for other in (x, x.flip(3)))
    assert bool((same ^ mirrored).all())
    # Binomial of 400 at 1/2: 10 is the standard deviation.
    assert abs(int(mirrored.sum()) - 200) < 50


def test_crops_stay_in_the_image_and_take_the_share_that_is_asked_for():
    # An image whose pixels are its own x coordinate: what a view shows is where it was cut out.
    size = 64
    x = ((2 * torch.arange(size) + 1) / size - 1).expand(1, 1, size, size).repeat(500, 1, 1, 1)
    views = Views(crop_scale=0.25)(x, KEYS[:1])
    width = (views[:, 0, 0, -1] - views[:, 0, 0, 0]) / (2 - 2 / size)  # of the share of 1
    assert width.min() >= 0.5 - 1e-3
    assert width.max() <= 1 + 1e-3
    # The area is uniform from 1/4 to 1: 0.625 +- 0.22 / sqrt(500)
    assert width.square().mean().item() == pytest.approx(0.625, abs=0.05)
    assert torch.all(views.diff(dim=3) > 0)


def test_a_turn_by_the_largest_angle_moves_a_point_as_the_angle_says(monkeypatch):
    monkeypatch.setattr("cs_gan.ssl.views.uniform", lambda keys, count, drawn: torch.ones(len(keys), count, drawn))
    x = torch.full((1, 1, 65, 65), -1.0)
    x[0, 0, 32, 52] = 1.0  # 20 pixels to the right of the centre
    view = Views(turn=90)(x, KEYS[:1])
    row, column = divmod(int(view[0, 0].argmax()), 65)
    # The view shows at p what lies at R p, so the point goes to where R p is it: a quarter turn, 20 pixels up.
    assert math.dist((row, column), (12, 32)) < 1.5


def test_grey_views_have_equal_channels_and_the_luma_of_the_image():
    x = images()
    view = Views(grey=1.0)(x, KEYS[:1])
    luma = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
    torch.testing.assert_close(view, luma.expand(-1, 3, -1, -1), rtol=0, atol=1e-5)


def test_jitter_changes_four_fifths_of_the_views_and_leaves_grey_pixels_grey():
    x = images(500, 1, 4).expand(-1, 3, -1, -1).contiguous()
    view = Views(jitter=0.5)(x, KEYS[:1])
    # YIQ's rounded matrices leave a grey pixel grey to their three decimals.
    assert (view - view.mean(1, keepdim=True)).abs().max() < 5e-3
    changed = ((view - x).abs().amax((1, 2, 3)) > 1e-3).double().mean().item()
    assert changed == pytest.approx(0.8, abs=0.07)  # four standard deviations of 0.018


def test_noise_has_the_deviation_that_is_asked_for():
    x = images(200)
    noise = Views(noise=0.1)(x, KEYS[:1]) - Views()(x, KEYS[:1])
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)
    assert abs(noise.mean().item()) < 0.002
