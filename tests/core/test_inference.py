import copy
import pickle

import pytest
import torch
from torch import nn

from cs_gan import CodedSmoothing, RandomizedCodedInference, SplineCode
from cs_gan.errors import BatchError, BlockError, CodeError
from tests.core.helpers import Function


def network():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).eval()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class TestSubstitute:
    def test_coded_blocks_inside_a_coded_block_run_plainly(self):
        model, x = network(), torch.randn(8, 3)
        outputs = []
        for blocks in ([""], ["", "0", "2"]):
            coded = CodedSmoothing(model, blocks, 1.5)
            with coded.substitute(generator(1)):
                outputs.append(model(x))
            coded.detach()
        assert torch.equal(*outputs)

    def test_blocks_beside_each_other_are_each_coded_under_their_own_permutation(self):
        model, x, code, g = network(), torch.randn(8, 3), SplineCode(8, 12), generator(1)

        def through(block, x):
            order = torch.randperm(8, generator=g)
            return code.decode(block(code.encode(x, order)), order)

        expected = through(model[2], model[1](through(model[0], x)))
        with CodedSmoothing(model, ["0", "2"], 1.5).substitute(generator(1)):
            torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)

    def test_the_block_runs_once_on_n_samples(self):
        block, seen = network(), []
        block.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
        with CodedSmoothing(block, [""], 1.5).substitute():
            block(torch.randn(8, 3))
        assert seen == [12]

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda x: x.sum(), r"\(\)"),
            (lambda x: x.T, "N = 12"),
            (lambda x: object(), "object.*_pytree"),
        ],
    )
    def test_outputs_that_can_not_be_decoded_are_refused(self, function, message):
        block = Function(function)
        with pytest.raises(BatchError, match=message), CodedSmoothing(block, [""], 1.5).substitute():
            block(torch.randn(8, 3))

    def test_no_penalty_is_measured(self):
        block = network()
        coded = CodedSmoothing(block, [""])
        with coded.substitute():
            block(torch.randn(8, 3))
        with pytest.raises(BlockError):
            coded.penalty()

    def test_a_default_device_does_not_move_the_permutation(self):
        block = network()
        torch.set_default_device("meta")
        try:
            with CodedSmoothing(block, [""]).substitute(generator()):
                output = block(torch.ones(4, 3, device="cpu"))
        finally:
            torch.set_default_device(None)
        assert output.device.type == "cpu"


class TestRandomizedCodedInference:
    @pytest.mark.parametrize("ratio", [1.0, 1.5])
    def test_zero_forcing_identity_gives_the_batch_back(self, ratio):
        x = torch.randn(8, 3).double()
        served = RandomizedCodedInference(nn.Identity(), ratio, decoder_kind="zero-forcing", votes=3)
        torch.testing.assert_close(served(x), x, rtol=0, atol=1e-12)

    def test_global_random_state_neither_matters_nor_moves(self):
        x, outputs = torch.randn(8, 3), []
        model = network()
        for seed in (1, 2):
            served = RandomizedCodedInference(copy.deepcopy(model), votes=2, seed=5)
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            outputs.append(served(x))
            assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(*outputs)

    @pytest.mark.parametrize("nodes", ["chebyshev", "random"])
    def test_seed_decides_all_and_calls_differ(self, nodes):
        x, model = torch.randn(8, 3), network()

        def series(seed):
            served = RandomizedCodedInference(copy.deepcopy(model), seed=seed, nodes=nodes)
            return [served(x) for _ in range(3)]

        first, again, other = series(1), series(1), series(2)
        assert all(map(torch.equal, first, again))
        assert not torch.equal(first[0], first[1])
        assert not torch.equal(first[0], other[0])

    def test_reseeding_the_generator_repeats_the_answer(self):
        served, x = RandomizedCodedInference(network(), seed=1), torch.randn(8, 3)
        first = served(x)
        served.generator.manual_seed(1)
        assert torch.equal(served(x), first)

    def test_votes_are_averaged_one_forward_each(self):
        model, x, runs = network(), torch.randn(8, 3), []
        model.register_forward_hook(lambda *_: runs.append(1))
        single = RandomizedCodedInference(copy.deepcopy(model), seed=1)
        expected = torch.stack([single(x) for _ in range(4)]).mean(0)
        runs.clear()
        output = RandomizedCodedInference(model, seed=1, votes=4)(x)
        assert len(runs) == 4
        torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-7)

    def test_votes_of_nested_outputs_are_averaged_leaf_by_leaf(self):
        nested, x = Function(lambda x: {"a": x, "b": (x * 2, "word")}), torch.randn(8, 3).double()
        output = RandomizedCodedInference(nested, 1.0, decoder_kind="zero-forcing", votes=2)(x)
        torch.testing.assert_close(output["a"], x)
        torch.testing.assert_close(output["b"][0], 2 * x)
        assert output["b"][1] == "word"

    @pytest.mark.parametrize("batch", [1, 2, 4, 5, 9])
    def test_a_bank_fills_short_batches_to_one_more_than_itself(self, batch):
        model, bank, x = network(), torch.randn(4, 3), torch.randn(batch, 3)
        output = RandomizedCodedInference(model, 1.5, reference=bank, seed=2)(x)
        filled = torch.cat([x, bank[: max(0, 5 - batch)]])
        expected = RandomizedCodedInference(copy.deepcopy(model), 1.5, seed=2)(filled)[:batch]
        assert output.shape == (batch, 2)
        assert torch.equal(output, expected)

    def test_a_batch_of_one_without_a_bank_says_what_to_do(self):
        with pytest.raises(BatchError, match=r"collect at least 2 inputs, or construct .*reference=bank"):
            RandomizedCodedInference(network())(torch.randn(1, 3))

    def test_a_bank_of_another_shape_is_refused(self):
        served = RandomizedCodedInference(network(), reference=torch.randn(4, 7))
        with pytest.raises(BatchError, match=r"\(7,\).*\(3,\)"):
            served(torch.randn(1, 3))

    def test_a_bank_does_not_fill_further_arguments(self):
        served = RandomizedCodedInference(network(), reference=torch.randn(4, 3))
        with pytest.raises(BatchError, match="first argument"):
            served(torch.randn(1, 3), scale=2)

    def test_an_output_without_a_batch_axis_outside_the_coded_blocks_is_averaged_whole(self):
        model, bank = Function(lambda x: (model.body(x), x.mean(), x.mean(0))), torch.randn(6, 3).double()
        model.body = nn.Identity()
        served = RandomizedCodedInference(
            model, 1.0, blocks=["body"], decoder_kind="zero-forcing", votes=2, reference=bank
        )
        x = torch.randn(2, 3).double()
        body, scalar, features = served(x)
        filled = torch.cat([x, bank[:5]])
        torch.testing.assert_close(body, x)
        torch.testing.assert_close(scalar, filled.mean())
        torch.testing.assert_close(features, filled.mean(0))

    def test_gradient_reaches_the_inputs_and_is_that_of_the_algorithm(self):
        model, code = network().double(), SplineCode(8, 12)
        x = torch.randn(8, 3).double().requires_grad_()
        served = RandomizedCodedInference(model, 1.5, seed=3)
        (ours,) = torch.autograd.grad(served(x).square().sum(), x)
        order = torch.randperm(8, generator=generator(3))
        by_hand = code.decode(model(code.encode(x, order)), order)
        (expected,) = torch.autograd.grad(by_hand.square().sum(), x)
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
        assert ours.abs().max() > 0

    @pytest.mark.parametrize("nodes", ["chebyshev", "random"])
    def test_another_generator_repeats_itself_and_leaves_the_own_draws_alone(self, nodes):
        model, x = network(), torch.randn(8, 3)
        twin = RandomizedCodedInference(copy.deepcopy(model), seed=1, nodes=nodes)
        served = RandomizedCodedInference(model, seed=1, nodes=nodes)
        assert torch.equal(served(x), twin(x))
        outputs = []
        for seed in (5, 5, 6):
            with served.drawing_from(generator(seed)):
                outputs.append(torch.stack([served(x), served(x)]))
        with pytest.raises(BatchError), served.drawing_from(generator(7)):
            served(x[:1])
        assert torch.equal(outputs[0], outputs[1])
        assert not torch.equal(outputs[0], outputs[2])
        assert not torch.equal(*outputs[0])
        assert all(torch.equal(served(x), twin(x)) for _ in range(2))

    def test_another_generator_draws_the_permutations(self):
        served, x = RandomizedCodedInference(network(), seed=1), torch.randn(8, 3)
        with served.drawing_from(generator(4)):
            output = served(x)
        assert torch.equal(output, RandomizedCodedInference(copy.deepcopy(served.model), seed=4)(x))

    def test_another_generator_serves_any_ratio_that_the_batch_allows(self):
        served = RandomizedCodedInference(network(), 0.05)  # two coded samples of 40
        with served.drawing_from(generator(4)):
            assert served(torch.randn(40, 3)).shape == (40, 2)

    @pytest.mark.parametrize("mode", [True, False])
    def test_the_models_mode_is_left_as_it_is(self, mode):
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train(mode)
        statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
        RandomizedCodedInference(model, votes=2)(torch.randn(8, 3))
        assert all(module.training is mode for module in model.modules())
        assert all(torch.equal(statistics[name], buffer) for name, buffer in model.named_buffers())

    def test_state_dict_holds_the_model_alone(self):
        model = network()
        served = RandomizedCodedInference(model, reference=torch.randn(4, 3))
        assert list(served.state_dict()) == [f"model.{name}" for name in model.state_dict()]

    @pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda served: pickle.loads(pickle.dumps(served))])
    def test_copies_answer_as_the_original_would(self, twin_of):
        served, x = RandomizedCodedInference(network(), seed=3), torch.randn(8, 3)
        twin = twin_of(served)
        assert torch.equal(twin(x), served(x))

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"votes": 0}, CodeError),
            ({"reference": torch.empty(0, 3)}, CodeError),
            ({"ratio": 0.0}, CodeError),
            ({"blocks": ["nowhere"]}, BlockError),
        ],
    )
    def test_unusable_options_are_refused(self, options, error):
        with pytest.raises(error):
            RandomizedCodedInference(network(), **options)
