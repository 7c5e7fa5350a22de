from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cs_gan.data import DEQUANTISATION_WIDTH, ImageStore, load_images
from cs_gan.data.augmentation import image_words, positions
from cs_gan.errors import DataError
from cs_gan.randomness import derive_seed


@pytest.fixture
def store() -> ImageStore:
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(12, 1, 8, 8)
    return ImageStore(images, torch.arange(12), "ramp", "a ramp")


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
    noise = store.batch(indices, augmentation=(0, 0), dequantize=True) - store.batch(indices)
    assert noise.min() >= -1e-6
    assert noise.max() <= DEQUANTISATION_WIDTH + 1e-6
    # 15,360 draws: the mean's standard error is width / sqrt(12 * 15360), five of them allowed.
    assert abs(noise.mean() - DEQUANTISATION_WIDTH / 2) < 5 * DEQUANTISATION_WIDTH / (12 * 15360) ** 0.5


def test_flip_mirrors_about_half_of_the_images_and_changes_no_other(store: ImageStore) -> None:
    indices = torch.arange(12).repeat(50)
    plain, flipped = store.batch(indices), store.batch(indices, augmentation=(0, 0), flip=True)
    same = (flipped == plain).flatten(1).all(1)
    mirrored = (flipped == plain.flip(-1)).flatten(1).all(1)
    assert torch.equal(same, ~mirrored)
    assert 240 < int(mirrored.sum()) < 360  # 300 expected, five standard deviations are 61


def test_draws_are_determined_by_seed_and_draw(store: ImageStore) -> None:
    def draw(*augmentation: int) -> torch.Tensor:
        return store.batch(range(12), augmentation=augmentation, flip=True, dequantize=True)  # type: ignore[arg-type]

    state = torch.get_rng_state()
    assert torch.equal(draw(1, 2), draw(1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert len({tuple(draw(*key).flatten().tolist()) for key in [(1, 2), (2, 1), (1, 3), (2, 2), (-1, 2)]}) == 5


def test_an_image_is_augmented_alike_in_any_batch(store: ImageStore) -> None:
    big = ImageStore(torch.randint(256, (200, 3, 5, 7), dtype=torch.uint8), None, "x", "x")  # 105 values: no 4 divides
    indices = torch.randperm(200)[:64]

    def draw(indices: torch.Tensor, **how: Any) -> torch.Tensor:
        return big.batch(indices, augmentation=(3, 11), **{"crop": 2, "flip": True, "dequantize": True, **how})

    whole = draw(indices)
    assert torch.equal(whole, torch.cat([draw(indices[:32]), draw(indices[32:])]))
    shuffle = torch.randperm(64)
    assert torch.equal(whole[shuffle], draw(indices[shuffle]))
    # One draw doesn't move the other: the same images are cropped and mirrored with noise and without.
    noise = draw(indices, crop=0, flip=False) - big.batch(indices)
    torch.testing.assert_close(whole - noise, draw(indices, dequantize=False), rtol=0, atol=1e-6)


def test_an_image_that_comes_twice_is_augmented_twice_differently(store: ImageStore) -> None:
    batch = store.batch([5, 0, 5, 5], augmentation=(0, 0), dequantize=True)
    assert len({tuple(batch[i].flatten().tolist()) for i in (0, 2, 3)}) == 3
    assert torch.equal(batch[:1], store.batch([5], augmentation=(0, 0), dequantize=True))


def test_draws_of_images_draws_and_pixels_are_uncorrelated() -> None:
    black = ImageStore(torch.zeros(2000, 1, 8, 8, dtype=torch.uint8), None, "x", "x")
    first, second = (
        (black.batch(range(2000), augmentation=(0, draw), dequantize=True) + 1).flatten(1).double() for draw in (0, 1)
    )
    # Columns: pixels of an image, of its neighbour in the store, and of itself in the next draw.
    columns = torch.cat([first[:, :40], first.roll(1, 0)[:, :40], second[:, :40]], 1)
    off = torch.corrcoef(columns.T) - torch.eye(120)
    # A correlation of 2,000 independent pairs has a standard deviation of 1/sqrt(2000); of 7,140, none reaches 5.5.
    assert off.abs().max() < 5.5 / 2000**0.5


def test_no_indices_give_an_empty_batch(store: ImageStore) -> None:
    assert store.batch([], augmentation=(0, 0), crop=3, flip=True, dequantize=True).shape == (0, 1, 8, 8)


def test_batch_leaves_the_store_alone(store: ImageStore) -> None:
    before = store.images.clone()
    store.batch([0, 1], augmentation=(0, 0), crop=2, flip=True, dequantize=True).zero_()
    assert torch.equal(store.images, before)


def test_draws_without_a_key_are_refused(store: ImageStore) -> None:
    with pytest.raises(DataError, match=r"pass augmentation=\(seed, draw\)"):
        store.batch([0], flip=True)


@pytest.mark.parametrize("indices", [[0, 12], [-1, 3]])
def test_indices_outside_the_store_are_refused(indices: list[int], store: ImageStore) -> None:
    with pytest.raises(DataError, match=r"indices reach from .*; give 0 \.\.\. 11\."):
        store.batch(indices)


def test_augmentation_does_not_change_between_versions() -> None:
    # Runs are resumed with it: whoever changes it on purpose changes these numbers too.
    words = image_words(derive_seed(0, "augmentation", 0), positions([0, 1, 0]), 0, 2)
    first = [word % 2**64 for word, _ in words.tolist()]
    assert first == [16924770359839575491, 17787960767559434727, 14802220062897289695]


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


def test_the_description_names_classes_without_images(tmp_path: Path) -> None:
    """Labels that count from 1 leave class 0 empty."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=[1, 2, 3, 1, 2, 3])
    assert load_images("folder", tmp_path / "a.npz").description.endswith("4 classes (0, 1, 2, ...), no image of 0")
    np.savez(tmp_path / "b.npz", images=pixels, labels=[0, 1, 2, 3, 1, 2])
    store = load_images("folder", tmp_path / "b.npz")
    assert store.description.endswith("4 classes (0, 1, 2, ...)")
    assert store.taken(torch.tensor([1, 4]), "test", "two").description.endswith("no image of 0, 2, 3")
