import copy
import gc
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from cs_gan import CodedSmoothing, SplineCode
from cs_gan.errors import BatchError, BlockError
from tests.core.oracles import DECODERS, NODES, SPLINES, naive_penalty


def mlp(width=4):
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2))


def observed(coded, call):
    with coded.observe():
        call()
    return coded.penalty()


def hook_count(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called", "_backward_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


class Function(nn.Module):
    """A block that is any function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args, **kwargs):
        return self.function(*args, **kwargs)


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

    def test_of_a_convolution_equals_the_algorithm_done_sample_by_sample(self):
        block = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.SiLU(), nn.Conv2d(3, 2, 3)).double()
        x = torch.randn(6, 2, 5, 5).double()
        penalty = observed(CodedSmoothing(block, [""], 1.5), lambda: block(x))
        torch.testing.assert_close(penalty, naive_penalty(SplineCode(6, 9), block, x), rtol=1e-9, atol=0)

    @pytest.mark.parametrize("ratio", [0.75, 1.0, 1.5])
    def test_of_an_affine_block_is_the_part_that_de_loses(self, ratio):
        block, x = nn.Linear(3, 4).double(), torch.randn(8, 3).double()
        penalty = observed(CodedSmoothing(block, [""], ratio), lambda: block(x))
        code = SplineCode(8, round(8 * ratio))
        lost = (code.decoder @ code.encoder - torch.eye(8).double()) @ x @ block.weight.T
        # (D E - I) 1 = 0, so the bias drops out.
        torch.testing.assert_close(penalty, lost.square().mean(), rtol=1e-10, atol=0)

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

    def test_under_autocast_is_float32_and_near_the_exact_one(self):
        block, x = mlp(), torch.randn(8, 3)
        coded = CodedSmoothing(block, [""], 1.0)
        exact = observed(coded, lambda: block(x)).item()
        with torch.autocast("cpu", torch.bfloat16):
            penalty = observed(coded, lambda: block(x))
        penalty.backward()
        assert penalty.dtype == torch.float32
        assert all(p.grad.isfinite().all() for p in block.parameters())
        # bfloat16 has 8 bits: outputs of order 1 are off by about 2^-8, their root mean square by a few of it.
        assert abs(penalty.sqrt().item() - exact**0.5) < 4 * 2**-8

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

    def test_gradient_penalty_style_second_derivative_goes_through_a_coded_block(self):
        block = mlp().double()
        coded = CodedSmoothing(block, [""], 1.5)
        x = torch.randn(5, 3).double().requires_grad_()

        def loss(block, x, penalise):
            (slope,) = torch.autograd.grad(penalise(block, x), x, create_graph=True)
            return (slope.norm(dim=1) - 1).square().mean()

        def by_hand(block, x):
            code = SplineCode(5, 8)
            return (code.decode(block(code.encode(x))) - block(x)).square().mean()

        leaves = [x, *block.parameters()]
        ours = torch.autograd.grad(loss(block, x, lambda b, x: observed(coded, lambda: b(x))), leaves, allow_unused=True)
        theirs = torch.autograd.grad(loss(block, x, by_hand), leaves, allow_unused=True)
        for mine, other in zip(ours, theirs, strict=True):
            if other is not None:  # the last bias shifts the penalty's slope by nothing
                torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)
        assert ours[1].abs().max() > 0

    def test_gradient_penalty_taken_inside_the_context_is_the_plain_one(self):
        block, x = mlp(), torch.randn(6, 3).requires_grad_()

        def penalty():
            return torch.autograd.grad(block(x).sum(), x, create_graph=True)[0].square().sum()

        expected = torch.autograd.grad(penalty(), block[0].weight)[0]
        with CodedSmoothing(block, ["0"]).observe():
            inside = torch.autograd.grad(penalty(), block[0].weight)[0]
        assert torch.equal(inside, expected)

    def test_gradient_flows_through_both_sides(self):
        block, x = mlp(), torch.randn(8, 3)
        code = SplineCode(8, 12)
        weights = list(block.parameters())
        plain, decoded = block(x), code.decode(block(code.encode(x)))
        expected = torch.autograd.grad((decoded - plain).square().mean(), weights)
        ours = torch.autograd.grad(observed(CodedSmoothing(block, [""], 1.5), lambda: block(x)), weights)
        for mine, other in zip(ours, expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


class TestModelIsUntouched:
    def test_outputs_inside_and_outside_are_bit_equal_to_the_bare_models(self):
        model, x = mlp(), torch.randn(8, 3)
        bare = model(x)
        coded = CodedSmoothing(model, ["", "0"])
        assert torch.equal(model(x), bare)
        with coded.observe():
            assert torch.equal(model(x), bare)
        assert torch.equal(model(x), bare)
        coded.detach()
        assert torch.equal(model(x), bare)

    def test_state_dict_keys_parameters_and_modules_stay_the_same_objects(self):
        model = mlp()
        keys = list(model.state_dict())
        objects = [*map(id, model.parameters()), *map(id, model.modules())]
        attributes = {name: set(vars(module)) for name, module in model.named_modules()}
        coded = CodedSmoothing(model, ["*"])

        def same():
            now = [*map(id, model.parameters()), *map(id, model.modules())]
            here = {name: set(vars(module)) for name, module in model.named_modules()}
            return list(model.state_dict()) == keys and now == objects and here == attributes

        assert same()
        with coded.observe():
            model(torch.randn(4, 3))
            assert same()
        with coded.substitute():
            model(torch.randn(4, 3))
            assert same()
        coded.detach()
        assert same()

    def test_no_hook_lives_outside_a_context(self):
        model = mlp()
        coded = CodedSmoothing(model, ["", "0"], share_dropout=True)
        assert hook_count(model) == 0
        for context in (coded.observe, coded.substitute):
            with context():
                model(torch.randn(4, 3))
                assert hook_count(model) > 0
            assert hook_count(model) == 0

    def test_the_models_own_hooks_survive_in_their_order(self):
        model, seen = mlp(), []
        for mark in "ab":
            model[0].register_forward_pre_hook(lambda *_, mark=mark: seen.append(mark))
            model[0].register_forward_hook(lambda *_, mark=mark: seen.append(mark.upper()))
        coded = CodedSmoothing(model, ["0"])
        with coded.observe():
            model(torch.randn(4, 3))
        assert "".join(seen) == "abABabAB"  # plain pass, coded pass
        seen.clear()
        model(torch.randn(4, 3))
        assert "".join(seen) == "abAB"

    @pytest.mark.parametrize("copy_of", ["deepcopy", "pickle", "torch.save"])
    def test_an_attached_model_copies_as_if_nothing_were_there(self, copy_of):
        model, x = mlp(), torch.randn(4, 3)
        coded = CodedSmoothing(model, ["0"])
        if copy_of == "deepcopy":
            twin = copy.deepcopy(model)
        elif copy_of == "pickle":
            twin = pickle.loads(pickle.dumps(model))
        else:
            file = io.BytesIO()
            torch.save(model, file)
            file.seek(0)
            twin = torch.load(file, weights_only=False)
        assert torch.equal(twin(x), model(x))
        theirs, ours = observed(CodedSmoothing(twin, ["0"]), lambda: twin(x)), observed(coded, lambda: model(x))
        assert torch.equal(theirs, ours)


class TestAttachment:
    def test_second_attachment_is_refused_until_the_first_detaches(self):
        model = mlp()
        first = CodedSmoothing(model, ["0"])
        with pytest.raises(BlockError, match="'0'.*detach"):
            CodedSmoothing(model, ["2", "0"])
        CodedSmoothing(model, ["2"]).detach()  # other blocks are free, also after the refusal
        first.detach()
        CodedSmoothing(model, ["0"])

    def test_second_attachment_is_allowed_once_the_first_object_is_gone(self):
        model = mlp()
        first = CodedSmoothing(model, ["0"])
        observed(first, lambda: model(torch.randn(4, 3)))
        del first
        gc.collect()
        CodedSmoothing(model, ["0"])

    def test_detach_twice_takes_nothing_from_the_next_owner(self):
        model = mlp()
        first = CodedSmoothing(model, ["0"])
        first.detach()
        second = CodedSmoothing(model, ["0"])
        first.detach()
        with pytest.raises(BlockError):
            CodedSmoothing(model, ["0"])
        assert list(second.blocks) == ["0"]

    def test_an_attachment_does_not_keep_the_model_alive(self):
        import weakref

        model = mlp()
        reference, coded = weakref.ref(model), CodedSmoothing(model, ["0"])
        coded.detach()
        del model
        gc.collect()
        assert reference() is None

    def test_contexts_after_detach_are_refused(self):
        model = mlp()
        coded = CodedSmoothing(model, ["0"])
        coded.detach()
        for context in (coded.observe, coded.substitute):
            with pytest.raises(BlockError, match="detach"), context():
                pass

    @pytest.mark.parametrize("outer", ["observe", "substitute"])
    @pytest.mark.parametrize("inner", ["observe", "substitute"])
    def test_contexts_do_not_nest(self, outer, inner):
        model, x = mlp(), torch.randn(4, 3)
        coded = CodedSmoothing(model, ["0"])
        with getattr(coded, outer)():
            with pytest.raises(BlockError, match=rf"{inner}\(\) inside {outer}\(\)"), getattr(coded, inner)():
                pass
            with pytest.raises(BlockError, match="leave the context"):
                coded.detach()
            model(x)  # the outer context is whole
        with getattr(coded, inner)():
            model(x)

    def test_repr_names_blocks_and_choices(self):
        coded = CodedSmoothing(mlp(), ["0"], 1.25, spline="linear")
        assert all(word in repr(coded) for word in ("'0'", "1.25", "linear", "chebyshev"))
        coded.detach()
        assert "detached" in repr(coded)


class TestBatches:
    def attach(self, function, **options):
        block = Function(function)
        return block, CodedSmoothing(block, [""], 1.5, **options)

    @pytest.mark.parametrize(
        ("function", "arguments", "message"),
        [
            (lambda x: x, (torch.randn(1, 3),), "at least 2 samples"),
            (lambda x: x, (torch.arange(6),), "int64"),
            (lambda x, mask: x, (torch.randn(6, 3), torch.ones(6, dtype=torch.bool)), "bool"),
            (lambda x: x, (3.0,), "without a tensor"),
            (lambda x: x, (torch.tensor(3.0),), "without a tensor"),
            (lambda x: x.sum(0), (torch.randn(6, 3),), r"\(3,\).*K = 6"),
            (lambda x: x.T, (torch.randn(6, 3),), r"\(3, 6\).*K = 6"),
            (lambda x: x.mean(), (torch.randn(6, 3),), r"\(\).*K = 6"),
            (lambda x: torch.randn(6, 3), (torch.randn(6, 3),), "N = 9"),
            (lambda x: x.argmax(1), (torch.randn(6, 3),), "no floating-point"),
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

    def test_the_batch_size_may_change_between_calls(self):
        block, coded = self.attach(torch.tanh)
        total = observed(coded, lambda: [block(torch.randn(K, 3)) for K in (6, 2, 11)])
        assert total.isfinite()


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

    def test_a_block_under_two_names_is_one_block_called_twice(self):
        model = nn.Sequential(nn.Linear(3, 3), nn.Tanh()).double()
        model.append(model[1])
        x = torch.randn(6, 3).double()
        coded = CodedSmoothing(model, ["2"], 1.5)
        observed(coded, lambda: model(x))
        code, first = SplineCode(6, 9), model[0](x).detach()
        expected = naive_penalty(code, torch.tanh, first) + naive_penalty(code, torch.tanh, first.tanh())
        assert list(coded.penalties) == ["1"]
        torch.testing.assert_close(coded.penalties["1"], expected, rtol=1e-9, atol=0)

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


class Failing(nn.Module):
    """Batch norm, dropout and a parametrized layer around an exception raised at a chosen batch size."""

    def __init__(self):
        super().__init__()
        self.linear = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))
        self.norm, self.dropout = nn.BatchNorm1d(3), nn.Dropout(0.5)
        self.fail_at, self.error = 0, ZeroDivisionError

    def forward(self, x):
        x = self.dropout(self.norm(self.linear(x)))
        if len(x) == self.fail_at:
            raise self.error("on purpose")
        return x

    def state(self):
        flags = [(m.training, getattr(m, "track_running_stats", None)) for m in self.modules()]
        own = [set(vars(m)) for m in self.modules()]
        return flags, own, hook_count(self), parametrize._cache_enabled, self.norm.running_mean is None


@pytest.mark.parametrize("batch_norm", ["keep", "running", "update"])
@pytest.mark.parametrize("fail_at", [6, 9])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
class TestExceptions:
    def build(self, batch_norm, fail_at, error):
        model = nn.Sequential(Failing(), nn.Linear(3, 3))
        model[0].error = error
        coded = CodedSmoothing(model, ["", "0"], 1.5, batch_norm=batch_norm, share_dropout=True)
        before = model[0].state()
        model[0].fail_at = fail_at
        return model, coded, before

    @pytest.mark.parametrize("context", ["observe", "substitute"])
    def test_an_exception_that_leaves_the_context_leaves_nothing_behind(self, batch_norm, fail_at, error, context):
        model, coded, before = self.build(batch_norm, fail_at, error)
        if context == "substitute":
            model[0].fail_at = 9  # the only size that runs
        with pytest.raises(error), getattr(coded, context)():
            model(torch.randn(6, 3))
        assert model[0].state() == before
        with pytest.raises(BlockError, match="no penalty"):
            coded.penalty()
        model[0].fail_at = 0
        assert observed(coded, lambda: model(torch.randn(6, 3))).isfinite()
        with coded.substitute():
            model(torch.randn(6, 3))
        assert model[0].state() == before

    def test_an_exception_caught_inside_the_context_spoils_no_later_call(self, batch_norm, fail_at, error):
        if error is KeyboardInterrupt and fail_at == 6:
            pytest.skip("torch runs no hook after it, so the context must be left first")
        model, coded, before = self.build(batch_norm, fail_at, error)
        x = torch.randn(6, 3)
        with coded.observe():
            with pytest.raises(error):
                model(x)
            model[0].fail_at = 0
            model(x)
        assert set(coded.penalties) == {"", "0"}
        assert coded.penalty().isfinite()
        assert model[0].state() == before


def test_an_exception_in_an_inner_call_that_the_model_catches_keeps_the_outer_call_paired():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.risky = Function(self.fail)

        def fail(self, x):
            raise ZeroDivisionError

        def forward(self, x):
            try:
                return self.risky(x)
            except ZeroDivisionError:
                return x.tanh()

    model, x = Careful(), torch.randn(6, 3).double()
    coded = CodedSmoothing(model, ["", "risky"], 1.5)
    observed(coded, lambda: model(x))
    assert set(coded.penalties) == {""}
    torch.testing.assert_close(coded.penalty(), naive_penalty(SplineCode(6, 9), torch.tanh, x), rtol=1e-9, atol=0)


class TestInPlace:
    def test_a_block_that_overwrites_its_input_is_coded_on_what_it_was_given(self):
        def build(inplace):
            torch.manual_seed(1)
            stem = nn.Linear(3, 3).double()
            return nn.Sequential(stem, nn.Sequential(nn.ReLU(inplace=inplace), nn.Linear(3, 2).double()))

        x, results = torch.randn(6, 3).double(), []
        for inplace in (True, False):
            model = build(inplace)
            coded = CodedSmoothing(model, ["1"], 1.5)
            with coded.observe():
                output = model(x)
            (output.sum() + coded.penalty()).backward()
            results.append([output, coded.penalty(), *(p.grad for p in model.parameters())])
        for mine, other in zip(*results, strict=True):
            assert torch.equal(mine, other)

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


@pytest.mark.parametrize("nodes", NODES)
def test_a_batch_of_two_is_enough(nodes):
    block = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    penalty = observed(CodedSmoothing(block, [""], 1.0, nodes=nodes), lambda: block(torch.randn(2, 3)))
    penalty.backward()
    assert penalty.isfinite()
    assert block[0].weight.grad.isfinite().all()
