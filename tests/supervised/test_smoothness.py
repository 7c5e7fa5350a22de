"""Measures of smoothness against closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from cs_gan.errors import BatchError, ConfigError
from cs_gan.randomness import stream
from cs_gan.supervised import boundary, decision_field, jacobian_norm, segment_energy
from tests.core.helpers import Function


def test_jacobian_norm_of_a_linear_map_is_its_frobenius_norm_and_leaves_no_gradient():
    linear = nn.Linear(5, 3).double()
    x = torch.randn(7, 5, dtype=torch.float64)
    assert jacobian_norm(linear, x) == pytest.approx(linear.weight.detach().norm().item(), rel=1e-12)
    assert linear.weight.grad is None
    assert not x.requires_grad


def test_jacobian_norm_is_the_mean_over_samples():
    square = Function(lambda x: x.square().sum(1, keepdim=True))  # gradient 2 x
    x = torch.randn(6, 2, 2, dtype=torch.float64, generator=stream(0))
    model = nn.Sequential(nn.Flatten(), square)
    assert jacobian_norm(model, x) == pytest.approx(float((2 * x).flatten(1).norm(dim=1).mean()), rel=1e-12)


def test_segment_energy_of_an_affine_map_is_nothing_and_of_a_square_is_known():
    x = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    assert segment_energy(nn.Linear(1, 4).double(), x, stream(0)) < 1e-20  # second differences of 1e-16, times 32^2
    # f(t) = (2 t)^2 either way round: f'' = 8 at each of the 31 inner points of 32 intervals.
    assert segment_energy(Function(torch.square), x, stream(0)) == pytest.approx(64 * 31 / 32, rel=1e-9)


def test_measures_use_evaluation_mode_and_put_each_module_back():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(8, 2)
    assert jacobian_norm(model, x) == jacobian_norm(model, x)
    assert segment_energy(model, x, stream(1)) == segment_energy(model, x, stream(1))
    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("radius", [0.3, 0.8])
def test_the_boundary_of_a_disc_is_a_circle(radius):
    disc = Function(lambda x: torch.stack([x.square().sum(1), torch.full((len(x),), radius**2)], 1))
    found = boundary(decision_field(disc, 1.0, 401), 1.0)
    # Chords h of at most sqrt(2) / 200 are shorter than their arcs by (h / r)^2 / 24: below 1e-4 at r = 0.3. Vertices
    # come within h^2 / (8 r) of the circle, 2e-5 at r = 0.3, which tilts edges of 0.02 by 1e-3; they turn by 0.067.
    assert found.length == pytest.approx(2 * math.pi * radius, rel=1e-3)
    assert found.curvature == pytest.approx(1 / radius, rel=0.02)


def test_a_straight_boundary_has_no_curvature_and_two_have_twice_the_length():
    line = Function(lambda x: torch.stack([x[:, 0] + x[:, 1], 0 * x[:, 0]], 1))
    found = boundary(decision_field(line, 1.0, 101), 1.0)
    assert found.length == pytest.approx(2 * math.sqrt(2), rel=1e-3)
    assert found.curvature == pytest.approx(0, abs=1e-3)
    strip = Function(lambda x: torch.stack([x[:, 1].abs(), torch.full((len(x),), 0.505)], 1))
    assert boundary(decision_field(strip, 1.0, 101), 1.0).length == pytest.approx(4, rel=1e-3)


def test_without_a_boundary_there_is_no_curvature():
    found = boundary(np.ones((11, 11)), 1.0)
    assert found.length == 0
    assert math.isnan(found.curvature)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jacobian_norm(nn.Identity(), torch.arange(4)[:, None]), "int64"),
        (lambda: jacobian_norm(Function(lambda x: x.sum()), torch.randn(4, 2)), r"\(K, classes\)"),
        (lambda: segment_energy(Function(lambda x: [x]), torch.randn(4, 2), stream(0)), "gave list"),
        (lambda: decision_field(nn.Linear(2, 3), 1.0, 5), "3 logits"),
    ],
)
def test_what_can_not_be_measured_is_refused(call, message):
    with pytest.raises(BatchError, match=message):
        call()


@pytest.mark.parametrize("options", [{"segments": 0}, {"points": 2}])
def test_impossible_segments_are_refused(options):
    with pytest.raises(ConfigError, match="3 points"):
        segment_energy(nn.Identity(), torch.randn(4, 2), stream(0), **options)
    with pytest.raises(ConfigError, match="1 samples"):
        segment_energy(nn.Identity(), torch.randn(1, 2), stream(0))


@pytest.mark.parametrize(
    "measure",
    [
        jacobian_norm,
        lambda model, x: segment_energy(model, x, torch.Generator().manual_seed(0), segments=8),
        lambda model, x: decision_field(model, 1.0, 9).sum(),
    ],
)
def test_autocast_around_a_measure_changes_nothing(measure):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)), torch.randn(6, 2)
    expected = measure(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert measure(model, x) == expected
