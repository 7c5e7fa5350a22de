"""Hooks of others, threads, tasks and copies: what must not notice that a block is coded."""

import asyncio
import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cs_gan import CodedSmoothing, in_coded_pass
from cs_gan.errors import BlockError
from cs_gan.gan import averaged, critic_step
from cs_gan.gan.terms import FeatureNorm
from tests.core.helpers import Function, hook_count, mlp, observed


def in_thread(function):
    """What a function gives in another thread."""
    results = []

    def run():
        try:
            results.append(function())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


class TestHooksOfOthers:
    def test_a_hook_can_ask_whether_this_is_a_coded_pass(self):
        model, x, seen = mlp(), torch.randn(6, 3), []
        model[0].register_forward_hook(lambda _module, _args, output: seen.append((len(output), in_coded_pass())))
        coded = CodedSmoothing(model, [""], 1.5)
        observed(coded, lambda: model(x))
        assert seen == [(6, False), (9, True)]
        with coded.substitute():
            model(x)
        assert seen[2:] == [(9, True)]
        model(x)
        assert seen[3:] == [(6, False)]
        assert not in_coded_pass()

    def test_it_is_over_after_an_exception(self):
        def fail(x):
            if len(x) == 9:
                raise ValueError
            return x

        block = Function(fail)
        coded = CodedSmoothing(block, [""], 1.5)
        for context in (coded.observe, coded.substitute):
            with pytest.raises(BlockError), context():
                block(torch.randn(6, 3))
            assert not in_coded_pass()

    def test_a_hook_that_changes_the_output_goes_on_running_there(self):
        model, x = mlp().double(), torch.randn(6, 3).double()
        coded = CodedSmoothing(model, [""], 1.5)
        plain = observed(coded, lambda: model(x))
        model[2].register_forward_hook(lambda _module, _args, output: 3 * output)
        torch.testing.assert_close(observed(coded, lambda: model(x)), 9 * plain, rtol=1e-12, atol=0)

    def test_feature_norm_of_a_block_inside_a_coded_block_measures_the_real_images(self):
        def losses(coded_at):
            torch.manual_seed(0)
            critic = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Linear(4, 1), nn.Flatten(0))
            coded = CodedSmoothing(critic, coded_at, 1.5, weight=0.0) if coded_at else None
            optimizer = torch.optim.SGD(critic.parameters(), 0.0)
            real, fake = torch.randn(8, 3), torch.randn(8, 3)
            terms = [FeatureNorm(1.0, "0.0")]
            return critic_step(critic, optimizer, real, fake, torch.rand(8), terms=terms, coded=coded)

        expected = losses(None)["feature_norm"]
        for coded_at in (["0"], [""], ["0.0"]):
            assert losses(coded_at)["feature_norm"] == expected


def gpt2():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=17, n_embd=8, n_layer=3, n_head=2, bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, attn_implementation="eager",
    )  # fmt: skip
    return transformers.GPT2Model(config), {"input_ids": torch.arange(4 * 5).view(4, 5) % 17, "use_cache": False}


def mixtral():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=17, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    ids = torch.arange(4 * 5).view(4, 5) % 17
    return transformers.MixtralForCausalLM(config), {"input_ids": ids, "labels": ids, "use_cache": False}


class TestCollectedByTransformers:
    @pytest.mark.parametrize("installed", [True, False])
    def test_hidden_states_and_attentions_are_those_without_coding(self, installed):
        model, inputs = gpt2()
        wanted = {"output_hidden_states": True, "output_attentions": True}
        if installed:  # its hooks, which stay
            model(**inputs, **wanted)
        coded = CodedSmoothing(model, ["h.1"], 1.5)
        with coded.observe():
            inside = model(**inputs, **wanted)
        plain = model(**inputs, **wanted)
        for name in ("hidden_states", "attentions"):
            assert len(inside[name]) == len(plain[name])
            assert all(map(torch.equal, inside[name], plain[name]))

    def test_the_loss_that_balances_experts_is_that_without_coding(self):
        model, inputs = mixtral()
        plain = model(**inputs, output_router_logits=True)
        coded = CodedSmoothing(model, ["model.layers.0"], 1.5)
        with coded.observe():
            inside = model(**inputs, output_router_logits=True)
        assert inside.aux_loss == plain.aux_loss
        assert inside.loss == plain.loss
        assert coded.penalty() > 0

    def test_substitute_refuses_to_collect_those_of_coded_samples(self):
        model, inputs = gpt2()
        coded = CodedSmoothing(model, ["h.1"], 1.5)
        with pytest.raises(BlockError, match=r"\['hidden_states'\].*output_hidden_states=False"), coded.substitute():
            model(**inputs, output_hidden_states=True)
        with coded.substitute():
            assert model(**inputs).last_hidden_state.shape == (4, 5, 8)


class TestThreads:
    @pytest.mark.parametrize("context", ["observe", "substitute"])
    def test_a_plain_call_of_another_thread_is_plain_and_adds_nothing(self, context):
        model, x = mlp().double(), torch.randn(6, 3).double()
        coded = CodedSmoothing(model, ["0"], 1.5)
        alone = observed(coded, lambda: model(x))
        expected = model(x)
        with getattr(coded, context)(*[torch.Generator().manual_seed(1)] * (context == "substitute")):
            model(x)
            assert torch.equal(in_thread(lambda: model(x)), expected)
            assert not in_thread(in_coded_pass)
        if context == "observe":
            assert torch.equal(coded.penalty(), alone)

    def test_both_at_once_stay_apart(self):
        # The other thread is inside the block while this one enters and leaves its own call of it.
        inside, go_on = threading.Event(), threading.Event()

        def slow(x):
            if threading.current_thread() is not threading.main_thread():
                inside.set()
                go_on.wait(10)
            return x.tanh()

        block, x, results = Function(slow), torch.randn(6, 3), []
        coded = CodedSmoothing(block, [""], 1.5)
        with coded.observe():
            other = threading.Thread(target=lambda: results.append(block(x)))
            other.start()
            assert inside.wait(10)
            block(x)
            go_on.set()
            other.join()
        assert torch.equal(results[0], x.tanh())
        once = coded.penalty()
        assert torch.equal(observed(coded, lambda: block(x)), once)

    def test_a_plain_call_of_another_task_is_plain_too(self):
        model, x = mlp(), torch.randn(6, 3)
        coded = CodedSmoothing(model, ["0"], 1.5)
        alone, expected = observed(coded, lambda: model(x)), model(x)

        async def observing(entered, called):
            with coded.observe():
                entered.set()
                await called.wait()
                model(x)
            return coded.penalty()

        async def plain(entered, called):
            await entered.wait()
            output = model(x)
            with (
                pytest.raises(BlockError, match=r"while another thread or task is inside observe\(\)"),
                coded.observe(),
            ):
                pass
            called.set()
            return output

        async def both():
            events = asyncio.Event(), asyncio.Event()
            return await asyncio.gather(observing(*events), plain(*events))

        penalty, output = asyncio.run(both())
        assert torch.equal(penalty, alone)
        assert torch.equal(output, expected)


class TestCopies:
    @pytest.mark.parametrize("context", ["observe", "substitute"])
    @pytest.mark.parametrize("make", [copy.deepcopy, pickle.dumps, AveragedModel, averaged])
    def test_one_made_inside_a_context_is_refused_and_outside_it_has_no_hooks(self, context, make):
        model = mlp()
        coded = CodedSmoothing(model, ["0"], 1.5)
        with getattr(coded, context)():
            with pytest.raises(BlockError, match=r"outside of the context"):
                make(model)
            model(torch.randn(6, 3))
        twin = make(model)
        if isinstance(twin, nn.Module):
            assert hook_count(twin) == 0
            twin(torch.randn(6, 3))
        assert observed(coded, lambda: model(torch.randn(6, 3))) > 0

    def test_one_that_shares_the_hooks_is_not_coded(self):
        model, x = mlp(), torch.randn(6, 3)
        coded = CodedSmoothing(model, ["0"], 1.5)
        alone = observed(coded, lambda: model(x))
        with coded.observe():
            shallow = copy.copy(model[0])
            assert torch.equal(shallow(x), model[0](x))
        assert torch.equal(coded.penalty(), alone)
