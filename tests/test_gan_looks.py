"""The pictures that a GAN's run makes for its report, besides samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cs_gan.data import ImageStore, load_images
from cs_gan.runs import RunFolder
from models import build_gan
from tasks.gan import looks
from tasks.gan.looks import Looks, nearest_pixels

CPU = torch.device("cpu")
Z = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return build_gan("dcgan16", width=4, channels=1)[0].train()


def made_by(folder):
    return {path.name for path in folder.path.iterdir()}


def test_all_pictures_are_made_and_tell_their_step(folder, generator):
    Looks(load_images("digits"), folder, 3, False, 64).save(generator, Z, None, CPU, 40, last=True)
    assert made_by(folder) == {"real.png", "interpolation-strip.png", "nearest-strip.png"}
    for path in (folder.interpolation, folder.nearest):
        with Image.open(path) as picture:
            assert picture.info["step"] == "40"


def test_real_images_are_a_grid_of_the_samples_size_and_stay_as_they_are(folder, generator):
    store = load_images("digits")
    Looks(store, folder, 3, False, 64).save(generator, Z, None, CPU, 0, last=False)
    with Image.open(folder.real) as picture:
        assert picture.size == (8 * 67 - 3, 8 * 67 - 3)
        first = np.asarray(picture)[:64:4, :64:4]
    assert any(np.array_equal(first, image[0].numpy()) for image in store.images)
    before = folder.real.stat().st_mtime_ns
    Looks(store, folder, 3, False, 64).save(generator, Z, None, CPU, 5, last=False)
    assert folder.real.stat().st_mtime_ns == before


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_few_images_are_enough(count, folder, generator):
    store = ImageStore(noise(count, 1, 16, 16), None, "few", "few images")
    Looks(store, folder, 0, True, 64).save(generator, Z, None, CPU, 0, last=True)
    assert folder.real.exists()
    assert folder.nearest.exists() == (count > 1)


def test_many_images_are_searched_only_after_the_last_step(folder, generator, monkeypatch):
    monkeypatch.setattr(looks, "CHEAP", 100)
    view = Looks(load_images("digits"), folder, 0, False, 64)
    view.save(generator, Z, None, CPU, 0, last=False)
    assert "nearest-strip.png" not in made_by(folder)
    view.save(generator, Z, None, CPU, 5, last=True)
    assert "nearest-strip.png" in made_by(folder)


def test_neither_random_state_nor_the_network_changes(folder, generator):
    state, weights = torch.get_rng_state(), {name: value.clone() for name, value in generator.state_dict().items()}
    Looks(load_images("digits"), folder, 0, True, 64).save(generator, Z, None, CPU, 0, last=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in generator.state_dict().items())
    assert all(module.training for module in generator.modules())


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_nearest_images_are_those_of_a_search_one_by_one(mirrored, monkeypatch):
    monkeypatch.setattr(looks, "CHUNK", 7 * 3 * 4 * 5)  # seven images at a time
    images, among = noise(4, 3, 4, 5), noise(50, 3, 4, 5, seed=1)
    among[30], among[31] = images[2], images[1].flip(-1)
    distances, rows = nearest_pixels(images, among, 3, mirrored)
    for number, image in enumerate(images):
        views = [image, image.flip(-1)] if mirrored else [image]
        by_hand = [
            min(np.sqrt(np.mean((view.numpy().astype(float) - other.numpy()) ** 2)) for view in views)
            for other in among
        ]
        order = np.argsort(by_hand)[:3]
        assert rows[number].tolist() == order.tolist()
        np.testing.assert_allclose(distances[number], np.array(by_hand)[order], rtol=1e-12)
    assert (distances[2, 0], rows[2, 0]) == (0, 30)  # a copy has distance 0, not nearly 0
    assert (distances[1, 0] == 0) == mirrored


def test_a_conditional_generator_gets_the_classes_of_the_grid(folder, generator):
    asked = []

    class Conditional(torch.nn.Module):
        def forward(self, z, labels):
            asked.append(labels.tolist())
            return generator(z)

    labels = torch.arange(8).repeat(8)
    Looks(load_images("digits"), folder, 0, False, 64).save(Conditional(), Z, labels, CPU, 0, last=True)
    rows, queries = asked
    assert rows == [row for row in range(looks.ROWS) for _ in range(looks.STEPS)]  # a class a row
    assert queries == list(range(looks.QUERIES))


def test_with_classes_each_column_of_the_real_images_is_one(folder, generator):
    images = torch.arange(6, dtype=torch.uint8).repeat(4)[:, None, None, None].expand(-1, 1, 16, 16) * 20
    store = ImageStore(images.contiguous(), torch.arange(6).repeat(4), "classes", "classes")

    class Conditional(torch.nn.Module):
        def forward(self, z, labels):
            return generator(z)

    Looks(store, folder, 3, False, 64).save(Conditional(), Z, torch.arange(5).repeat(8), CPU, 0, last=True)
    with Image.open(folder.real) as picture:
        assert picture.size == (5 * 67 - 3, 8 * 67 - 3)
        middle = np.asarray(picture)[32::67, 32::67]
    np.testing.assert_array_equal(middle, np.tile([0, 20, 40, 60, 80], (8, 1)))
