"""The built-in discrepancies, against their formulas."""

import pytest
import torch
from torch import nn

from cs_gan import CodedSmoothing
from cs_gan.core.discrepancy import (
    DISCREPANCIES,
    FLOOR,
    mean_squared_error,
    scale_free_error,
    shrink_proof_error,
)
from cs_gan.errors import CodeError
from tests.core.helpers import Function, mlp, observed

RELATIVE = {"scale_free": scale_free_error, "shrink_proof": shrink_proof_error}


def pair(*shape):
    torch.manual_seed(0)
    return [torch.randn(*shape, dtype=torch.float64).requires_grad_() for _ in range(2)]


class TestMeanSquaredError:
    def test_it_is_what_its_name_says_in_value_and_all_derivatives(self):
        both = pair(4, 3)
        assert torch.equal(mean_squared_error(*both), (both[0] - both[1]).square().mean())
        assert torch.autograd.gradcheck(mean_squared_error, both, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(mean_squared_error, both)

    def test_its_gradient_keeps_the_memory_layout(self):
        both = [torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last).requires_grad_() for _ in range(2)]
        for error in DISCREPANCIES.values():
            for grad in torch.autograd.grad(error(*both), both):
                assert grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", RELATIVE)
class TestRelativeToTheVariance:
    @pytest.mark.parametrize("shape", [(2, 3), (5,), (4, 3, 2, 2), (2, 1)])
    def test_it_is_the_mean_squared_error_over_the_variance(self, name, shape):
        decoded, output = pair(*shape)
        variance = torch.tensor(output.detach().numpy().var(axis=0).mean())
        expected = (decoded - output).square().mean() / variance
        torch.testing.assert_close(RELATIVE[name](decoded, output), expected, rtol=1e-12, atol=0)

    def test_derivatives_equal_finite_differences_at_a_constant_variance(self, name):
        decoded, output = pair(4, 3)
        variance = output.detach().var(0, correction=0).mean()
        if name == "shrink_proof":
            error = shrink_proof_error
        else:  # finite differences see the variance change, so it is held by hand

            def error(decoded, output):
                return mean_squared_error(decoded, output) / variance

            ours = torch.autograd.grad(scale_free_error(decoded, output), (decoded, output), create_graph=True)
            by_hand = torch.autograd.grad(error(decoded, output), (decoded, output), create_graph=True)
            torch.testing.assert_close(ours, by_hand, rtol=1e-12, atol=0)
            seconds = [
                torch.autograd.grad(sum(g.square().sum() for g in grads), (decoded, output))
                for grads in (ours, by_hand)
            ]
            # differentiating the gradient again, the variance is still a constant
            torch.testing.assert_close(*seconds, rtol=1e-12, atol=0)
        assert torch.autograd.gradcheck(error, (decoded, output), check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(error, (decoded, output))

    def test_it_maps_and_differentiates_forward_as_the_mean_squared_error_does(self, name):
        error, (decoded, output) = RELATIVE[name], pair(3, 4, 2)
        mapped = torch.func.vmap(error)(decoded, output)
        torch.testing.assert_close(mapped, torch.stack([error(*each) for each in zip(decoded, output, strict=True)]))
        value, slope = torch.func.jvp(lambda d: error(d, output[0]), (decoded[0],), (torch.ones(4, 2).double(),))
        torch.testing.assert_close(value, error(decoded[0], output[0]))
        torch.testing.assert_close(slope, torch.autograd.grad(value, decoded)[0][0].sum())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_relu_block_of_ten_times_the_weights_and_biases_has_the_same_penalty(self, name, dtype):
        torch.manual_seed(0)
        block = nn.Sequential(nn.Linear(6, 8), nn.ReLU()).to(dtype)
        x = torch.randn(16, 6).to(dtype)
        coded = CodedSmoothing(block, [""], 1.25, discrepancy=name)
        small = observed(coded, lambda: block(x))
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.mul_(8 if dtype == torch.bfloat16 else 10)
        assert small.dtype == torch.float32
        # 8 is a power of two, so bfloat16 rounds alike; 10 rounds anew, by 2^-24 in each of a few steps
        torch.testing.assert_close(
            observed(coded, lambda: block(x)), small, rtol=0 if dtype == torch.bfloat16 else 1e-5, atol=0
        )

    def test_constant_outputs_give_nothing_and_a_finite_gradient(self, name):
        for constant in (0.0, 3.7, -1e6):
            layer = nn.Linear(4, 3)
            with torch.no_grad():
                layer.weight.zero_()
                layer.bias.fill_(constant)
            penalty = observed(
                CodedSmoothing(layer, [""], discrepancy=name), lambda layer=layer: layer(torch.randn(8, 4))
            )
            # rows of the matrices sum to 1 within a few 2^-24, squared and over the floor of 2^-24
            assert penalty < 32 * 2.0**-24
            penalty.backward()
            assert layer.weight.grad.isfinite().all()

    def test_below_the_floor_the_floor_counts(self, name):
        output = (1 + 2.0**-13 * torch.tensor([[1.0], [-1.0]], dtype=torch.float64)).requires_grad_()
        decoded = output.detach() + 0.5
        floor = output.detach().square().mean() * FLOOR
        torch.testing.assert_close(RELATIVE[name](decoded, output), 0.25 / floor, rtol=1e-9, atol=0)

    def test_each_output_tensor_is_divided_by_its_own_variance(self, name):
        torch.manual_seed(0)
        x = torch.randn(6, 4, dtype=torch.float64)
        single = Function(torch.tanh)
        alone = observed(CodedSmoothing(single, [""], discrepancy=name), lambda: single(x))
        for axis, function in ((0, lambda x: (x.tanh(), 1000 * x.tanh())), (1, lambda x: [x.tanh(), 0.01 * x.tanh()])):
            block = Function(function)
            coded = CodedSmoothing(block, [""], discrepancy=name, batch_axis=axis)
            both = observed(coded, lambda block=block, axis=axis: block(x.movedim(0, axis)))
            torch.testing.assert_close(both, 2 * alone, rtol=1e-9, atol=0)


def slope_along_the_scale(name, at=1.0):
    """The penalty of a block whose outputs are multiplied by a scale, and d penalty / d scale."""
    torch.manual_seed(0)
    block, scale = mlp().double(), torch.tensor(at, dtype=torch.float64, requires_grad=True)
    nn.init.zeros_(block[2].bias)
    outer = Function(lambda x: scale * block(x))
    x = torch.randn(12, 3, dtype=torch.float64)
    penalty = observed(CodedSmoothing(outer, [""], discrepancy=name), lambda: outer(x))
    return penalty.item(), torch.autograd.grad(penalty, scale)[0].item()


def test_only_the_shrink_proof_one_does_not_shrink():
    for name in ("squared", "scale_free"):
        value, slope = slope_along_the_scale(name)
        assert slope == pytest.approx(2 * value, rel=1e-9)  # both are quadratic in the scale, if the variance is held
    value, slope = slope_along_the_scale("shrink_proof")
    assert abs(slope) < 1e-12 * value
    assert value == pytest.approx(slope_along_the_scale("scale_free")[0], rel=1e-12)


def test_the_pull_of_the_scale_free_one_grows_as_outputs_shrink():
    """So a loss whose gradient is bounded can't keep logits from becoming constant (docs/method.md)."""
    for name, factor in (("squared", 0.01), ("scale_free", 100.0)):
        assert slope_along_the_scale(name, 0.01)[1] == pytest.approx(factor * slope_along_the_scale(name)[1], rel=1e-9)


def test_an_unknown_name_is_refused():
    message = "discrepancy='relative' is unknown: choose one of squared, scale_free, shrink_proof, or give a function"
    with pytest.raises(CodeError, match=message):
        CodedSmoothing(mlp(), ["0"], discrepancy="relative")
    with pytest.raises(CodeError, match=message), CodedSmoothing(mlp(), ["0"]).observe("relative"):
        pass
