"""Corruptions on the fly: noise keyed by image, more damage at each severity, the stated statistics."""

import pytest
import torch

from cs_gan.data import CORRUPTIONS, ImageStore, corrupted
from cs_gan.errors import DataError

NOISE = ("gaussian_noise", "shot_noise", "impulse_noise")


def corrupt(images: torch.Tensor, name: str, severity: int, seed: int = 0) -> torch.Tensor:
    """The corrupted images alone."""
    return corrupted(ImageStore(images, None, "waves", "waves"), name, severity, seed=seed).images


@pytest.fixture
def images() -> torch.Tensor:
    """Six smooth images in colour with some detail, as pictures are."""
    grid = torch.linspace(0, 6.28, 32)
    waves = torch.stack([(k * grid[:, None] + grid).sin() * (k * grid[None, :]).cos() for k in (1, 2, 3)])
    return (waves.roll(5, 2) * 90 + 128 + torch.randn(6, 3, 32, 32) * 5).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_damage_grows_with_severity_and_leaves_the_images_alone(name: str, images: torch.Tensor) -> None:
    before = images.clone()
    damaged = [corrupt(images, name, severity) for severity in range(1, 6)]
    assert all(each.dtype == torch.uint8 and each.shape == images.shape for each in damaged)
    errors = [(each.double() - images.double()).square().mean().item() for each in damaged]
    assert errors[0] > 0
    assert errors == sorted(errors)
    assert errors[4] > 2 * errors[0]
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side", [8, 16])
def test_small_grey_images_are_damaged_too(name: str, side: int) -> None:
    images = torch.randint(256, (2, 1, side, side), dtype=torch.uint8)
    if name == "saturation":
        with pytest.raises(DataError, match="grey images have no saturation"):
            corrupt(images, name, 1)
    else:
        assert not torch.equal(corrupt(images, name, 5), images)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_damaged_alike_in_any_company(name: str, images: torch.Tensor) -> None:
    state = torch.get_rng_state()
    whole = corrupt(images, name, 3, seed=1)
    assert torch.equal(corrupt(images[:2], name, 3, seed=1), whole[:2])
    assert torch.equal(corrupt(images, name, 3, seed=1), whole)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(corrupt(images, name, 3, seed=2), whole) == (name not in NOISE)


def test_more_than_a_chunk_is_keyed_alike() -> None:
    images = torch.full((300, 1, 4, 4), 128, dtype=torch.uint8)
    whole = corrupt(images, "gaussian_noise", 5)
    assert len({tuple(image.flatten().tolist()) for image in whole}) == 300


def test_noise_has_the_stated_size() -> None:
    grey = torch.full((40, 1, 32, 32), 128, dtype=torch.uint8)
    n = grey.numel()  # 40,960
    gaussian = corrupt(grey, "gaussian_noise", 2).double() / 255
    # The variance's relative standard error is sqrt(2 / n) = 0.7 %; rounding adds (1/255)^2 / 12, below 0.04 %.
    assert gaussian.var().item() == pytest.approx(0.06**2, rel=5 * (2 / n) ** 0.5)
    shot = corrupt(grey, "shot_noise", 2).double() / 255
    # Poisson: variance mean / photons; its kurtosis of 3 + 1/40 widens the error by little.
    assert shot.var().item() == pytest.approx(128 / 255 / 80, rel=0.04)
    assert shot.mean().item() == pytest.approx(128 / 255, abs=5 * (128 / 255 / 80 / n) ** 0.5 + 1 / 255)
    impulse = corrupt(grey, "impulse_noise", 4)
    for value in (0, 255):
        share = (impulse == value).double().mean().item()
        assert share == pytest.approx(0.05, abs=5 * (0.05 * 0.95 / n) ** 0.5)


def test_impulses_hit_whole_pixels(images: torch.Tensor) -> None:
    images = images.clamp(1, 254)
    hit = (corrupt(images, "impulse_noise", 5) != images).sum(1)
    assert set(hit.unique().tolist()) == {0, 3}


def test_a_corrupted_store_keeps_labels_and_says_what_was_done(images: torch.Tensor) -> None:
    store = ImageStore(images, torch.arange(6), "waves", "waves", "test", class_names=tuple("abcdef"))
    foggy = corrupted(store, "contrast", 2)
    assert torch.equal(foggy.images, corrupt(images, "contrast", 2))
    assert foggy.labels is store.labels
    assert foggy.class_names == store.class_names
    assert foggy.description.startswith("waves (test, contrast 2): 6 images")
    assert foggy.fingerprint != store.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "gaussian"}, r"corrupted\('gaussian', severity=1\): known .* Did you mean 'gaussian_"),
        ({"severity": 0}, "give a severity of 1 to 5"),
        ({"severity": 6}, "give a severity of 1 to 5"),
        ({"images": torch.zeros(2, 4, 8, 8, dtype=torch.uint8)}, "images have 4 channels"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, object], message: str, images: torch.Tensor) -> None:
    with pytest.raises(DataError, match=message):
        corrupt(**{"images": images, "name": "jpeg", "severity": 1, **arguments})  # type: ignore[arg-type]
