"""Manifolds far from the origin, and points that are equally far."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cs_gan.metrics import density_coverage, distances, precision_recall
from cs_gan.metrics.distances import clouds, squared_distances, squared_radii
from tests.metrics.test_scores import _clouds


def _naive(x: Tensor, y: Tensor) -> Tensor:  # (n, d), (m, d) -> (n, m)
    return ((x[:, None].double() - y[None].double()) ** 2).sum(2)


@pytest.mark.parametrize("offset", [0.0, 300.0, 1e6])
def test_squared_distances_are_those_of_the_differences(offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "ROWS", 7)
    x, y = (each + offset for each in _clouds(40, 60, 5))  # from 26 rows on torch.cdist takes a matrix product
    first, second = clouds(x, y)
    # Rounding by 1e-16 of squared lengths of O(10)
    torch.testing.assert_close(squared_distances(first, second), _naive(x, y), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(squared_radii(second, 3), _naive(y, y).sort(1).values[:, 3], rtol=1e-9, atol=1e-12)
    assert [place for place, _ in first.parts()][-1] == slice(35, 42)


@pytest.mark.parametrize("score", [precision_recall, density_coverage])
@pytest.mark.parametrize("offset", [300.0, 1e4])
def test_manifolds_do_not_depend_on_where_they_are(score: Callable[..., tuple[float, float]], offset: float) -> None:
    generated, real = (each.double() for each in _clouds(120, 150, 3))
    for dtype in (torch.float64, torch.float32, torch.float16):
        far = [(each + offset).to(dtype) for each in (generated, real)]
        # Float64 takes the offset off again without an error that matters: the result has at most 13 binary digits.
        assert score(*far) == score(*(each.double() - offset for each in far))
    assert 0 < score(generated, real)[0] < 1


@pytest.mark.parametrize("score", [precision_recall, density_coverage])
def test_manifolds_of_two_groups_far_apart_are_exact(score: Callable[..., tuple[float, float]]) -> None:
    """No centre is near both groups, so centring in float32 would not be enough."""
    generated, real = _clouds(60, 70, 3)
    far = torch.tensor([0.0, 3000.0])
    both = [torch.cat([each + shift for shift in far]) for each in (generated, real)]
    alone = [score(generated + shift, real + shift) for shift in far]
    # Each group's own shares, averaged: neighbours are in the same group.
    assert score(*both) == pytest.approx([sum(each) / 2 for each in zip(*alone, strict=True)], abs=1e-12)


def test_copies_tie_exactly() -> None:
    """Of 5-dimensional points on a grid many are equally far: closed balls take them in, open ones don't."""
    rng = torch.Generator().manual_seed(0)
    generated, real = (torch.randint(3, (count, 5), generator=rng).float() + 1000 / 3 for count in (600, 700))
    squares = lambda a, b: ((a[:, None].double() - b[None].double()) ** 2).sum(2)
    radii = {id(each): squares(each, each).sort(1).values for each in (generated, real)}
    within, across = squares(generated, real), squares(real, generated)
    slack = 1e-9  # far above the rounding of this oracle and far below the grid's distances
    precise = (within <= radii[id(real)][:, 3] + slack).any(1).double().mean().item()
    recalled = (across <= radii[id(generated)][:, 3] + slack).any(1).double().mean().item()
    assert precision_recall(generated, real) == pytest.approx((precise, recalled), abs=1e-12)
    inside = across < radii[id(real)][:, 5:6] - slack
    expected = inside.sum().item() / (5 * 600), inside.any(1).double().mean().item()
    assert density_coverage(generated, real) == pytest.approx(expected, abs=1e-12)
