import math

import pytest
import torch

from cs_gan.ssl import barlow_twins, cross_correlation, nt_xent

# Oracles are in float64; the losses in float32, which keeps 6e-8 relative over sums of some dozen terms.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def pair(count=5, width=7):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, count, width, generator=generator).unbind()


def nt_xent_by_loop(first, second, temperature):
    views = [list(map(float, row)) for row in torch.cat([first, second]).double()]

    def cosine(u, v):
        return sum(a * b for a, b in zip(u, v, strict=True)) / math.hypot(*u) / math.hypot(*v)

    count, total = len(first), 0.0
    for i in range(2 * count):
        j = (i + count) % (2 * count)
        others = [math.exp(cosine(views[i], views[k]) / temperature) for k in range(2 * count) if k != i]
        total -= math.log(math.exp(cosine(views[i], views[j]) / temperature) / sum(others))
    return total / (2 * count)


def correlation_by_loop(first, second):
    a, b = first.double() - first.double().mean(0), second.double() - second.double().mean(0)
    count, width = a.shape
    out = torch.zeros(width, width, dtype=torch.float64)
    for i in range(width):
        for j in range(width):
            above = sum(a[n, i] * b[n, j] for n in range(count))
            out[i, j] = (
                above / (sum(a[n, i] ** 2 for n in range(count)) * sum(b[n, j] ** 2 for n in range(count))).sqrt()
            )
    return out


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_equals_a_loop_over_samples(temperature):
    first, second = pair()
    expected = nt_xent_by_loop(first, second, temperature)
    assert nt_xent(first, second, temperature).item() == pytest.approx(expected, rel=1e-5)


def test_nt_xent_of_views_that_are_all_alike_is_the_logarithm_of_their_number():
    alike = torch.ones(4, 3)
    assert nt_xent(alike, alike).item() == pytest.approx(math.log(7), rel=1e-6)


def test_nt_xent_falls_where_the_right_views_agree():
    first, second = pair()
    assert nt_xent(first, first) < nt_xent(first, second)
    assert nt_xent(first, first) < nt_xent(first, first.roll(1, 0))


def test_cross_correlation_equals_a_loop_over_features_and_samples():
    first, second = pair()
    torch.testing.assert_close(cross_correlation(first, second).double(), correlation_by_loop(first, second), **CLOSE)


@pytest.mark.parametrize("off_diagonal", [0.0, 0.005, 1.0])
def test_barlow_twins_equals_a_loop_over_the_correlation(off_diagonal):
    first, second = pair()
    c, expected = correlation_by_loop(first, second), 0.0
    for i in range(len(c)):
        for j in range(len(c)):
            expected += (1 - c[i, j].item()) ** 2 if i == j else off_diagonal * c[i, j].item() ** 2
    assert barlow_twins(first, second, off_diagonal).item() == pytest.approx(expected, rel=1e-5)


def test_barlow_twins_of_equal_uncorrelated_views_is_zero():
    views = torch.linalg.qr(torch.cat([torch.ones(8, 1), torch.randn(8, 3)], dim=1)).Q[:, 1:]  # orthogonal to ones
    assert barlow_twins(views, 3 * views + 1).item() == pytest.approx(0, abs=1e-9)


def test_a_unit_that_gives_one_value_has_a_finite_gradient():
    first, second = pair()
    first[:, 0] = 2.0
    first.requires_grad_()
    barlow_twins(first, second).backward()
    assert torch.isfinite(first.grad).all()


LOSSES = [nt_xent, barlow_twins, lambda first, second: cross_correlation(first, second).square().sum()]


def measured(loss, first, second):
    """The loss and its gradients."""
    first, second = (each.clone().requires_grad_() for each in (first, second))
    value = loss(first, second)
    return [value.detach(), *torch.autograd.grad(value, [first, second])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_autocast_around_a_loss_and_its_backward_changes_nothing(loss, dtype):
    views = [each.to(dtype) for each in pair(32, 16)]
    expected = measured(loss, *views)
    with torch.autocast("cpu", torch.bfloat16):
        found = measured(loss, *views)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        # The same products, perhaps summed in another order: rounding of sums of 32 terms.
        torch.testing.assert_close(ours, theirs, rtol=2e-5 if dtype is torch.float32 else 1e-12, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_float64_views_are_computed_in_float64(loss):
    # A float32 anywhere inside would leave 1e-8 of the value.
    first, second = (each.double() for each in pair())
    tiny = 1e-6 * torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    slope = measured(loss, first, second)[1]
    change = (loss(first + tiny, second) - loss(first - tiny, second)) / 2
    assert change.item() == pytest.approx((slope * tiny).sum().item(), rel=1e-5)  # cancellation: 1e-16 / 1e-6 relative
    assert nt_xent(first, second).item() == pytest.approx(nt_xent_by_loop(first, second, 0.5), rel=1e-14)


def test_derivatives_taken_inside_autocast_are_of_all_kinds():
    first, second = (each.double() for each in pair())

    def slope(x):
        return torch.func.grad(barlow_twins)(x, second)

    expected = torch.func.jvp(slope, (first,), (second,))
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.func.jvp(slope, (first,), (second,))
        x = first.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(barlow_twins(x, second), x, create_graph=True)
        (twice,) = torch.autograd.grad((gradient * second).sum(), x)  # the Hessian is symmetric
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(twice, expected[1], rtol=1e-10, atol=1e-12)
