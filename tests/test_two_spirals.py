"""Two spirals: on their curve, mirrored, balanced, repeatable."""

import math

import pytest
import torch

from benchmarks.spirals import two_spirals


def test_without_noise_points_lie_on_the_stated_curve() -> None:
    x, labels = two_spirals(500, noise=0)
    assert x.shape == (500, 2)
    assert (x.dtype, labels.dtype) == (torch.float32, torch.int64)
    radius = x.double().norm(dim=1)
    assert radius.max() <= 1 + 1e-6
    angle = 3 * math.pi * radius
    arm = torch.stack([angle.cos(), angle.sin()], 1) * (radius * (1 - 2 * labels))[:, None]
    # Both sides are float32 roundings of numbers up to 1, the angle magnifies that of the radius by 3 pi: < 15 * 2^-23.
    torch.testing.assert_close(x.double(), arm, rtol=0, atol=15 * 2**-23)


@pytest.mark.parametrize(("n", "counts"), [(2, [1, 1]), (7, [4, 3]), (100, [50, 50])])
def test_classes_are_balanced(n: int, counts: list[int]) -> None:
    assert two_spirals(n)[1].bincount().tolist() == counts


def test_the_seed_decides_everything_and_noise_is_added_on_top() -> None:
    state = torch.get_rng_state()
    assert torch.equal(two_spirals(50, seed=3)[0], two_spirals(50, seed=3)[0])
    assert not torch.equal(two_spirals(50, seed=3)[0], two_spirals(50, seed=4)[0])
    assert torch.equal(state, torch.get_rng_state())
    noise = two_spirals(5000, noise=0.1)[0] - two_spirals(5000, noise=0)[0]
    assert noise.std().item() == pytest.approx(0.1, rel=5 / (2 * 10000) ** 0.5)
