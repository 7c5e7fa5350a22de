"""Bulk draws: SplitMix64's published outputs, and distributions."""

import math

import pytest
import torch

from cs_gan.randomness import normal, splitmix, uniform


def test_words_are_splitmix64s():
    # The published first outputs of the generator that starts at 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    words = splitmix(1234567, torch.arange(4))
    assert [word % 2**64 for word in words.tolist()] == expected
    assert torch.equal(splitmix(torch.tensor(1234567), torch.arange(4)), words)


def test_splitmix_leaves_its_arguments_alone():
    key, position = torch.tensor(7), torch.arange(5)
    splitmix(key, position)
    assert key == 7
    assert torch.equal(position, torch.arange(5))


@pytest.mark.parametrize("shape", [(3,), (4, 5), (7, 1, 3)])
def test_draws_have_the_shape_and_follow_the_key(shape):
    for draw in (uniform, normal):
        first = draw(torch.tensor(1), *shape)
        assert first.shape == shape
        assert first.dtype == torch.float32
        assert torch.equal(first, draw(torch.tensor(1), *shape))
        assert not torch.equal(first, draw(torch.tensor(2), *shape))


@pytest.mark.parametrize("draw", [uniform, normal])
def test_many_keys_draw_what_each_would(draw):
    keys = torch.tensor([3, 5, 8])
    assert torch.equal(draw(keys, 4, 3), torch.stack([draw(key, 4, 3) for key in keys]))


def test_uniform_numbers_fill_the_interval_evenly():
    x = uniform(torch.tensor(3), 100_000)
    assert x.min() >= 0
    assert x.max() < 1
    counts = torch.histc(x, 20, 0, 1)
    chi_squared = float(((counts - 5000) ** 2 / 5000).sum())
    assert chi_squared < 43.8  # 19 degrees of freedom: exceeded once in a thousand seeds


def test_normal_numbers_are_normal_and_uncorrelated():
    x = normal(torch.tensor(5), 400, 256).double()
    n = x.numel()
    # Standard errors of mean, variance and fourth moment of n normal numbers; five of them allowed.
    assert abs(x.mean()) < 5 / math.sqrt(n)
    assert abs(x.square().mean() - 1) < 5 * math.sqrt(2 / n)
    assert abs(x.pow(4).mean() - 3) < 5 * math.sqrt(96 / n)
    inside = (x.abs() < 1).double().mean()
    assert abs(inside - math.erf(1 / math.sqrt(2))) < 5 * math.sqrt(0.6827 * 0.3173 / n)
    # Box and Muller's two halves share a radius: neither they nor neighbours may be correlated.
    flat = x.flatten()
    for lag in (1, n // 2, n // 4):
        assert abs((flat * flat.roll(lag)).mean()) < 5 / math.sqrt(n)
        assert abs((flat.square() * flat.roll(lag).square()).mean() - 1) < 5 * math.sqrt(8 / n)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_every_device_draws_the_same_bits():
    key = torch.tensor(11)
    assert torch.equal(uniform(key, 1000), uniform(key.cuda(), 1000).cpu())
    # Logarithms of float64 differ in their last bits, which survive rounding to float32 once in 10^8 numbers.
    assert torch.equal(normal(key, 1000), normal(key.cuda(), 1000).cpu())
