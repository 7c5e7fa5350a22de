"""An attached model is the bare model, and nothing stays behind."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from cs_gan import CodedSmoothing, RandomizedCodedInference, SplineCode
from cs_gan.errors import BlockError, CodeError
from tests.core.helpers import Function, hook_count, mlp, observed
from tests.core.oracles import naive_penalty


class TestHooksOfTheModel:
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

    def test_a_hook_that_changes_inputs_or_outputs_belongs_to_the_block(self):
        block, x = nn.Linear(3, 3).double(), torch.randn(6, 3).double()
        block.register_forward_pre_hook(lambda _, args: args[0].square())
        block.register_forward_hook(lambda _, __, output: output.tanh())
        penalty = observed(CodedSmoothing(block, [""], 1.5), lambda: block(x))
        torch.testing.assert_close(penalty, naive_penalty(SplineCode(6, 9), block, x), rtol=1e-9, atol=0)


class Holder(nn.Module):
    """What a trainer's module looks like: the network and its coding."""

    def __init__(self):
        super().__init__()
        self.net = mlp()
        self.coded = CodedSmoothing(self.net, ["", "0"], 1.5)


class TestAttachment:
    @pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda holder: pickle.loads(pickle.dumps(holder))])
    def test_a_copy_of_what_holds_it_is_attached_to_the_copied_model(self, copy_of):
        holder, x = Holder(), torch.randn(8, 3)
        penalty = observed(holder.coded, lambda: holder.net(x))  # its graph can't be copied
        twin = copy_of(holder)
        with pytest.raises(BlockError, match="no penalty"):
            twin.coded.penalty()
        assert torch.equal(observed(twin.coded, lambda: twin.net(x)), penalty)
        assert torch.equal(holder.coded.penalty(), penalty)
        with pytest.raises(BlockError, match="coded already"):
            CodedSmoothing(twin.net, ["0"])
        twin.coded.detach()
        CodedSmoothing(twin.net, ["0"])

    def test_second_attachment_is_refused_until_the_first_detaches(self):
        model = mlp()
        first = CodedSmoothing(model, ["0"])
        with pytest.raises(BlockError, match=r"'0' is coded already: call detach.*replace=True"):
            CodedSmoothing(model, ["2", "0"])
        CodedSmoothing(model, ["2"]).detach()  # other blocks are free, also after the refusal
        first.detach()
        CodedSmoothing(model, ["0"])

    def test_replace_detaches_every_older_owner_and_they_say_so(self):
        model, x = mlp(), torch.randn(8, 3)
        older = [CodedSmoothing(model, ["", "0"]), CodedSmoothing(model, ["2"])]
        newer = CodedSmoothing(model, ["0", "2"], replace=True)
        for one in older:
            assert one.blocks == {}
            for context in (one.observe, one.substitute):
                with pytest.raises(BlockError, match=r"replaced.*Use the new one"), context():
                    pass
            with pytest.raises(BlockError, match="replaced"):
                one.diagnose(lambda: model(x))
            one.detach()  # takes nothing from the new one
        assert observed(newer, lambda: model(x)) > 0
        assert set(newer.penalties) == {"0", "2"}
        CodedSmoothing(model, [""])  # free: its owner gave up all it had

    def test_replace_takes_nothing_inside_a_context_or_for_a_wrong_option(self):
        model = mlp()
        first, second = CodedSmoothing(model, ["0"]), CodedSmoothing(model, ["2"])
        with second.observe():
            with pytest.raises(BlockError, match=r"'2' can't be taken inside observe\(\)"):
                CodedSmoothing(model, ["0", "2"], replace=True)
            model(torch.randn(4, 3))
        with pytest.raises(CodeError):
            CodedSmoothing(model, ["0", "2"], replace=True, every=0)
        assert [list(one.blocks) for one in (first, second)] == [["0"], ["2"]]

    def test_replace_goes_through_the_module_for_serving(self):
        model, x = mlp(), torch.randn(8, 3)
        coded = CodedSmoothing(model, [""])
        with pytest.raises(BlockError, match="coded already"):
            RandomizedCodedInference(model)
        assert RandomizedCodedInference(model, replace=True)(x).shape == model(x).shape
        with pytest.raises(BlockError, match="replaced"), coded.observe():
            pass

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
        model = mlp()
        reference, coded = weakref.ref(model), CodedSmoothing(model, ["0"])
        coded.detach()
        del model
        gc.collect()
        assert reference() is None

    @pytest.mark.parametrize("replace", [False, True])  # of nothing: an ordinary attachment
    def test_contexts_after_detach_are_refused(self, replace):
        coded = CodedSmoothing(mlp(), ["0"], replace=replace)
        coded.detach()
        for context in (coded.observe, coded.substitute):
            with pytest.raises(BlockError, match=r"after detach\(\)"), context():
                pass

    @pytest.mark.parametrize("outer", ["observe", "substitute"])
    @pytest.mark.parametrize("inner", ["observe", "substitute"])
    def test_a_context_inside_another_is_refused(self, outer, inner):
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
@pytest.mark.parametrize("fail_at", [6, 9])  # in the plain pass, in the coded pass
class TestExceptions:
    def build(self, batch_norm, fail_at):
        model = nn.Sequential(Failing(), nn.Linear(3, 3))
        coded = CodedSmoothing(model, ["", "0"], 1.5, batch_norm=batch_norm, share_dropout=True)
        before = model[0].state()
        model[0].fail_at = fail_at
        return model, coded, before

    @pytest.mark.parametrize("context", ["observe", "substitute"])
    @pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
    def test_an_exception_that_leaves_the_context_leaves_nothing_behind(self, batch_norm, fail_at, error, context):
        model, coded, before = self.build(batch_norm, fail_at)
        model[0].error = error
        if context == "substitute":
            model[0].fail_at = 9  # the only size that runs
        in_coded_pass = issubclass(error, Exception) and model[0].fail_at == 9
        with pytest.raises(BlockError if in_coded_pass else error) as raised, getattr(coded, context)():
            model(torch.randn(6, 3))
        if in_coded_pass:  # says so, and keeps the first error
            assert isinstance(raised.value.__cause__, error)
            assert raised.match(r"fails in its coded pass, at N = 9 coded samples for K = 6: ZeroDivisionError")
        assert model[0].state() == before
        with pytest.raises(BlockError, match="no penalty"):
            coded.penalty()
        model[0].fail_at = 0
        assert observed(coded, lambda: model(torch.randn(6, 3))).isfinite()
        with coded.substitute():
            model(torch.randn(6, 3))
        assert model[0].state() == before

    def test_an_exception_caught_inside_the_context_spoils_no_later_call(self, batch_norm, fail_at):
        model, coded, before = self.build(batch_norm, fail_at)
        x = torch.randn(6, 3)
        with coded.observe():
            with pytest.raises(BlockError if fail_at == 9 else ZeroDivisionError):
                model(x)
            model[0].fail_at = 0
            model(x)
        assert set(coded.penalties) == {"", "0"}
        assert coded.penalty().isfinite()
        assert model[0].state() == before


def test_an_exception_in_an_inner_call_that_the_model_catches_keeps_the_outer_call_paired():
    def careful(x):
        try:
            return model.risky(x)
        except ZeroDivisionError:
            return x.tanh()

    model, x = Function(careful), torch.randn(6, 3).double()
    model.risky = Function(lambda x: 1 / 0)
    coded = CodedSmoothing(model, ["", "risky"], 1.5)
    observed(coded, lambda: model(x))
    assert set(coded.penalties) == {""}
    torch.testing.assert_close(coded.penalty(), naive_penalty(SplineCode(6, 9), torch.tanh, x), rtol=1e-9, atol=0)
