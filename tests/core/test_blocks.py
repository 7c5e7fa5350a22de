"""What blocks may take and give, and how they may contain each other."""

import pytest
import torch
from torch import nn

from cs_gan import CodedSmoothing, SplineCode
from cs_gan.errors import BatchError, BlockError
from tests.core.helpers import Function, hook_count, observed
from tests.core.oracles import naive_penalty


class TestBatches:
    def attach(self, function, **options):
        block = Function(function)
        return block, CodedSmoothing(block, [""], 1.5, **options)

    @pytest.mark.parametrize(
        ("function", "arguments", "message"),
        [
            (lambda x, mask: x, (torch.randn(6, 3), torch.ones(6, dtype=torch.bool)), "bool"),
            (lambda x: x, (3.0,), "without a tensor"),
            (lambda x: x, (torch.tensor(3.0),), "without a tensor"),
            (lambda x: x.T, (torch.randn(6, 3),), r"\(3, 6\).*K = 6"),
            (lambda x: x.mean(), (torch.randn(6, 3),), r"\(\).*K = 6"),
            (lambda x: torch.randn(6, 3), (torch.randn(6, 3),), "N = 9"),
            (lambda x: (x,) * (1 + (len(x) == 9)), (torch.randn(6, 3),), "another structure"),
        ],
    )
    def test_what_can_not_be_coded_is_refused_and_the_next_call_works(self, function, arguments, message):
        block, coded = self.attach(function)
        with pytest.raises(BatchError, match=message), coded.observe():
            block(*arguments)
        assert hook_count(block) == 0
        with pytest.raises(BlockError, match="no penalty"):
            coded.penalty()
        block.function = torch.tanh
        assert observed(coded, lambda: block(torch.randn(6, 3))).item() > 0

    def test_every_batch_tensor_is_coded_and_the_rest_passes_through(self):
        seen = []

        def function(x, scale, pair, *, style, flag, table):
            seen.append((x.shape, scale.shape, pair[0].shape, pair[1], style["w"].shape, flag, table.shape))
            return x * scale + pair[0] + style["w"]

        block, coded = self.attach(function)
        x, a, w = torch.randn(6, 3), torch.randn(6, 1), torch.randn(6, 3)
        scale, table = torch.tensor(2.0), torch.arange(4)
        penalty = observed(coded, lambda: block(x, scale, (a, "word"), style={"w": w}, flag=None, table=table))
        shape = torch.Size
        assert seen == [
            (shape([K, 3]), shape([]), shape([K, 1]), "word", shape([K, 3]), None, shape([4])) for K in (6, 9)
        ]
        code = SplineCode(6, 9)
        lost = code.decode(code.encode(x * 2 + a + w)) - (x * 2 + a + w)
        torch.testing.assert_close(penalty, lost.square().mean(), rtol=1e-4, atol=1e-10)

    def test_keyword_only_calls_are_coded(self):
        block, coded = self.attach(lambda *, x: x.tanh())
        assert observed(coded, lambda: block(x=torch.randn(6, 3))).item() > 0

    def test_nested_outputs_add_up_and_integers_among_them_are_left_out(self):
        def nested(x):
            return {"a": x.tanh(), "b": [x.sin(), (x.square(), None)], "label": x.argmax(1), "word": "w"}

        block, coded = self.attach(nested)
        x = torch.randn(6, 3).double()
        penalty = observed(coded, lambda: block(x))
        code = SplineCode(6, 9)
        parts = [naive_penalty(code, function, x) for function in (torch.tanh, torch.sin, torch.square)]
        torch.testing.assert_close(penalty, sum(parts), rtol=1e-9, atol=0)

    def test_outputs_of_several_dtypes_add_up(self):
        block, coded = self.attach(lambda x: (x.tanh(), x.double().tanh(), x.bfloat16().tanh()))
        assert observed(coded, lambda: block(torch.randn(6, 3))).isfinite()


class TestNesting:
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.inner, self.after = nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Tanh()

        def forward(self, x):
            return self.after(3 * self.inner(self.before(x)))

    def test_each_block_is_penalised_on_the_plain_pass_alone(self):
        outer, x = self.Outer().double(), torch.randn(6, 3).double()
        coded = CodedSmoothing(outer, ["", "inner", "inner.0"], 1.5)
        calls = []
        outer.inner.register_forward_hook(lambda *_: calls.append(1))
        observed(coded, lambda: outer(x))
        code, middle = SplineCode(6, 9), outer.before(x).detach()
        expected = {
            "": naive_penalty(code, outer, x),
            "inner": naive_penalty(code, outer.inner, middle),
            "inner.0": naive_penalty(code, outer.inner[0], middle),
        }
        assert set(coded.penalties) == set(expected)
        for name, value in expected.items():
            torch.testing.assert_close(coded.penalties[name], value, rtol=1e-9, atol=0)

    def test_passes_run_are_one_plain_and_one_coded_per_block_around(self):
        outer, runs = self.Outer(), []
        outer.inner[0].register_forward_hook(lambda *_: runs.append(1))
        observed(CodedSmoothing(outer, ["", "inner"]), lambda: outer(torch.randn(4, 3)))
        # plain; inner's coded pass; outer's coded pass, in which inner is inert
        assert len(runs) == 3

    def test_a_block_that_calls_itself_is_coded_on_every_plain_call(self):
        class Recursive(nn.Module):
            def forward(self, x, depth=2):
                return self(x.sin(), depth - 1) if depth else x.tanh()

        block, x = Recursive(), torch.randn(6, 3).double()
        penalty = observed(CodedSmoothing(block, [""], 1.5), lambda: block(x))
        code, run = SplineCode(6, 9), Recursive()
        chain = [(x, 2), (x.sin(), 1), (x.sin().sin(), 0)]
        expected = sum(naive_penalty(code, lambda x, d=d: run(x, d), inputs) for inputs, d in chain)
        torch.testing.assert_close(penalty, expected, rtol=1e-9, atol=0)


class TestInPlace:
    def test_the_next_layer_may_overwrite_the_blocks_output(self):
        model, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True)), torch.randn(6, 3)
        coded = CodedSmoothing(model, ["0"], 1.5)
        with coded.observe():
            output = model(x)
        (output.sum() + coded.penalty()).backward()
        code = SplineCode(6, 9)
        assert torch.equal(output, model[0](x).relu())
        lost = code.decode(code.encode(x @ model[0].weight.T)) - x @ model[0].weight.T
        torch.testing.assert_close(coded.penalty(), lost.square().mean(), rtol=1e-4, atol=1e-9)
