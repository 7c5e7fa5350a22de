from dataclasses import replace

import pytest
import torch

from cs_gan.data import DEQUANTISATION_WIDTH, ImageStore
from cs_gan.errors import DataError


@pytest.fixture
def store() -> ImageStore:
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(12, 1, 8, 8)
    return ImageStore(images, torch.arange(12), "ramp", "a ramp")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_batch_scales_every_grey_level(store: ImageStore) -> None:
    batch = store.batch(torch.arange(4))
    assert batch.dtype == torch.float32
    expected = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    # One float32 division and one subtraction of numbers up to 2: two roundings of 2^-24 * 2 at most.
    torch.testing.assert_close(batch.flatten().double(), expected, rtol=0, atol=4 * 2**-24)
    assert batch.min() == -1
    assert batch.max() == 1


def test_batch_keeps_the_order_of_indices_and_takes_lists(store: ImageStore) -> None:
    assert torch.equal(store.batch([3, 1]), store.batch(torch.arange(4))[[3, 1]])


def test_dequantisation_adds_uniform_noise_of_the_stated_width(store: ImageStore) -> None:
    indices = torch.arange(12).repeat(20)
    noise = store.batch(indices, generator=generator(), dequantize=True) - store.batch(indices)
    assert noise.min() >= -1e-6
    assert noise.max() <= DEQUANTISATION_WIDTH + 1e-6
    # 15,360 draws: the mean's standard error is width / sqrt(12 * 15360), five of them allowed.
    assert abs(noise.mean() - DEQUANTISATION_WIDTH / 2) < 5 * DEQUANTISATION_WIDTH / (12 * 15360) ** 0.5


def test_flip_mirrors_about_half_of_the_images_and_changes_no_other(store: ImageStore) -> None:
    indices = torch.arange(12).repeat(50)
    plain, flipped = store.batch(indices), store.batch(indices, generator=generator(), flip=True)
    same = (flipped == plain).flatten(1).all(1)
    mirrored = (flipped == plain.flip(-1)).flatten(1).all(1)
    assert torch.equal(same, ~mirrored)
    assert 240 < int(mirrored.sum()) < 360  # 300 expected, five standard deviations are 61


def test_batch_is_determined_by_the_generator(store: ImageStore) -> None:
    def draw(seed: int) -> torch.Tensor:
        return store.batch([0, 1, 2], generator=generator(seed), flip=True, dequantize=True)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    state = torch.get_rng_state()
    draw(1)
    assert torch.equal(state, torch.get_rng_state())


def test_batch_leaves_the_store_alone(store: ImageStore) -> None:
    before = store.images.clone()
    store.batch([0, 1], generator=generator(), flip=True, dequantize=True).zero_()
    assert torch.equal(store.images, before)


def test_draws_without_a_generator_are_refused(store: ImageStore) -> None:
    with pytest.raises(DataError, match="needs a generator"):
        store.batch([0], flip=True)


def test_length_and_shape(store: ImageStore) -> None:
    assert len(store) == 12
    assert store.image_shape == (1, 8, 8)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 1, 4, 4), torch.zeros(4, 4, dtype=torch.uint8), torch.zeros(0, 1, 4, 4, dtype=torch.uint8)],
)
def test_tensors_that_are_not_images_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(DataError, match="uint8"):
        ImageStore(images, None, "x", "x")


def test_labels_of_another_length_are_refused(store: ImageStore) -> None:
    with pytest.raises(DataError, match="12 images but labels"):
        replace(store, labels=torch.zeros(3))


def test_fingerprint_sees_one_pixel_the_order_and_how_the_images_were_made(store: ImageStore) -> None:
    pixel = store.images.clone()
    pixel[7, 0, 3, 3] += 1
    variants = [
        store,
        replace(store, images=pixel),
        replace(store, images=store.images.flip(0)),
        replace(store, images=store.images[:11], labels=None),
        replace(store, images=store.images.view(12, 1, 4, 16)),
        replace(store, name="other"),
        replace(store, split="test"),
        replace(store, preparation="centre crop 160"),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert replace(store, description="told otherwise").fingerprint == store.fingerprint


def test_fingerprint_does_not_change_between_versions() -> None:
    # Caches on disk are keyed by it: whoever changes it on purpose changes this line too.
    store = ImageStore(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), None, "zeros", "zeros")
    assert store.fingerprint == "3133577f853bdc18"
