import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cs_gan import CodedSmoothing, SplineCode
from cs_gan.errors import BlockError
from tests.core.helpers import Function, mlp, observed
from tests.core.oracles import DECODERS, NODES, SPLINES, naive_penalty


class TestPenalty:
    @pytest.mark.parametrize("nodes", ["chebyshev", "uniform"])
    @pytest.mark.parametrize("spline", SPLINES)
    @pytest.mark.parametrize("decoder", DECODERS)
    @pytest.mark.parametrize("ratio", [0.75, 1.0, 1.5])
    def test_equals_the_algorithm_done_sample_by_sample(self, nodes, spline, decoder, ratio):
        block, x = mlp().double(), torch.randn(8, 3).double()
        coded = CodedSmoothing(block, [""], ratio, nodes=nodes, spline=spline, decoder_kind=decoder, smoothing=1e-3)
        penalty = observed(coded, lambda: block(x))
        expected = naive_penalty(SplineCode(8, round(8 * ratio), nodes, spline, decoder, 1e-3), block, x)
        # Both float64; the square of an error of 1e-13 or a relative one of 1e-11 remains.
        torch.testing.assert_close(penalty, expected, rtol=1e-9, atol=1e-20)

    @pytest.mark.parametrize("ratio", [1.0, 1.5])
    @pytest.mark.parametrize("spline", SPLINES)
    def test_of_an_affine_block_is_zero_when_zero_forcing(self, ratio, spline):
        block, x = nn.Linear(3, 4), torch.randn(8, 3)
        coded = CodedSmoothing(block, [""], ratio, spline=spline, decoder_kind="zero-forcing")
        # Float32 rounding through a matrix of condition number below 100: errors of 1e-5, squared.
        assert observed(coded, lambda: block(x)).item() < 1e-9

    @pytest.mark.parametrize("decoder", DECODERS)
    def test_of_a_constant_is_zero(self, decoder):
        block = Function(lambda x: torch.ones_like(x) * 3)
        coded = CodedSmoothing(block, [""], decoder_kind=decoder)
        assert observed(coded, lambda: block(torch.randn(8, 3))).item() < 1e-11  # (a few eps * 3)^2

    def test_adds_up_over_calls_and_blocks_of_one_context_and_starts_anew_in_the_next(self):
        model = mlp()
        first, second = torch.randn(8, 3), torch.randn(6, 3)
        coded = CodedSmoothing(model, ["0", "1"], weight=0.5)
        alone = []
        for x in (first, second):
            observed(coded, lambda x=x: model(x))
            alone.append(coded.penalties)
        total = observed(coded, lambda: (model(first), model(second)))
        for name in ("0", "1"):
            torch.testing.assert_close(coded.penalties[name], alone[0][name] + alone[1][name], rtol=1e-6, atol=0)
        torch.testing.assert_close(total, 0.5 * sum(coded.penalties.values()), rtol=1e-6, atol=0)

    def test_takes_any_discrepancy(self):
        block, x = mlp(), torch.randn(8, 3)
        coded = CodedSmoothing(block, [""], 1.5, discrepancy=F.l1_loss)
        code = SplineCode(8, 12)
        expected = (code.decode(block(code.encode(x))) - block(x)).abs().mean()
        torch.testing.assert_close(observed(coded, lambda: block(x)), expected, rtol=1e-6, atol=0)

    def test_without_an_observed_call_is_an_error(self):
        block = mlp()
        coded = CodedSmoothing(block, ["0"])
        with pytest.raises(BlockError, match=r"observe\(\)"):
            coded.penalty()
        with coded.observe():
            pass
        with pytest.raises(BlockError, match="ran inside observe"):
            coded.penalty()

    @pytest.mark.parametrize("context", ["observe", "substitute"])
    def test_blocks_that_did_not_run_beside_others_are_named_once(self, context):
        model, x = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)), torch.randn(8, 3)
        coded = CodedSmoothing(model, ["0", "1", "2"])
        with pytest.warns(UserWarning, match=r"\['1', '2'\] did not run inside"), getattr(coded, context)():
            model[0](x)
        with warnings.catch_warnings(action="error"), getattr(coded, context)():
            model[0](x)

    @pytest.mark.parametrize("context", ["observe", "substitute"])
    def test_blocks_that_ran_once_may_be_left_out_later(self, context):
        """So do branches, and blocks inside a coded block."""
        model, x = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3))), torch.randn(8, 3)
        coded = CodedSmoothing(model, ["0", "1", "1.0"])
        with warnings.catch_warnings(action="error"):
            for call in (model, model[0]):
                with getattr(coded, context)():
                    call(x)

    def test_with_a_pass_without_gradients_warns(self):
        block, x = mlp(), torch.randn(8, 3)
        coded = CodedSmoothing(block, [""])

        def evaluate():
            with torch.no_grad():
                block(x)

        with pytest.warns(UserWarning, match=r"Evaluate outside observe\(\)"):
            observed(coded, lambda: (evaluate(), block(x)))
        with warnings.catch_warnings(action="error"):  # passes of one kind are meant
            observed(coded, lambda: (block(x), block(x)))
            observed(coded, lambda: (evaluate(), evaluate()))

    def test_of_a_bfloat16_block_is_float32(self):
        block = mlp().bfloat16()
        penalty = observed(CodedSmoothing(block, [""]), lambda: block(torch.randn(8, 3).bfloat16()))
        assert penalty.dtype == torch.float32
        assert penalty.isfinite()


class TestDerivatives:
    @pytest.mark.parametrize("decoder", DECODERS)
    def test_gradcheck_twice_for_inputs_and_parameters(self, decoder):
        block = mlp().double()
        coded = CodedSmoothing(block, [""], 1.5, decoder_kind=decoder)

        def penalty(x, *parameters):
            values = dict(zip(dict(block.named_parameters()), parameters, strict=True))
            return observed(coded, lambda: torch.func.functional_call(block, values, (x,)))

        leaves = [torch.randn(5, 3).double(), *(p.detach().clone() for p in block.parameters())]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        assert torch.autograd.gradcheck(penalty, leaves)
        assert torch.autograd.gradgradcheck(penalty, leaves)

    def test_gradient_penalty_taken_inside_the_context_is_the_plain_one(self):
        block, x = mlp(), torch.randn(6, 3).requires_grad_()

        def penalty():
            return torch.autograd.grad(block(x).sum(), x, create_graph=True)[0].square().sum()

        expected = torch.autograd.grad(penalty(), block[0].weight)[0]
        with CodedSmoothing(block, ["0"]).observe():
            inside = torch.autograd.grad(penalty(), block[0].weight)[0]
        assert torch.equal(inside, expected)


@pytest.mark.parametrize("nodes", NODES)
def test_a_batch_of_two_is_enough(nodes):
    block = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    penalty = observed(CodedSmoothing(block, [""], 1.0, nodes=nodes), lambda: block(torch.randn(2, 3)))
    penalty.backward()
    assert penalty.isfinite()
    assert block[0].weight.grad.isfinite().all()
