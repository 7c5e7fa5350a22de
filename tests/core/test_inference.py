import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from cs_gan import CodedSmoothing, RandomizedCodedInference, SplineCode
from cs_gan.errors import BatchError, BlockError, CodeError
from tests.core.helpers import Function


def network():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).eval()


class Named(nn.Module):
    """Called as networks of Hugging Face are."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *, pixel_values, double=False):
        y = self.model(pixel_values)
        return 2 * y if double else y


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

    def test_substitute_measures_no_penalty(self):
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

    def test_inputs_may_be_given_by_keyword(self):
        model, x = network(), torch.randn(4, 3)
        by_name = Named(model)
        expected = RandomizedCodedInference(model, seed=2)(x)
        assert torch.equal(RandomizedCodedInference(by_name, seed=2)(pixel_values=x, double=False), expected)
        bank = torch.randn(4, 3)
        expected = RandomizedCodedInference(copy.deepcopy(model), reference=bank)(x[:1])
        filled = RandomizedCodedInference(copy.deepcopy(by_name), reference=bank)
        assert torch.equal(filled(pixel_values=x[:1]), expected)
        filled = RandomizedCodedInference(copy.deepcopy(by_name), reference=bank)
        assert torch.equal(filled(double=True, pixel_values=x[:1]), 2 * expected)

    def test_a_batch_of_one_without_a_bank_says_what_to_do(self):
        with pytest.raises(BatchError, match=r"collect at least 2 inputs, or construct .*reference=bank"):
            RandomizedCodedInference(network())(torch.randn(1, 3))

    def test_a_bank_of_another_shape_is_refused(self):
        served = RandomizedCodedInference(network(), reference=torch.randn(4, 7))
        with pytest.raises(BatchError, match=r"\(7,\).*\(3,\)"):
            served(torch.randn(1, 3))

    def test_a_bank_does_not_fill_further_arguments(self):
        served = RandomizedCodedInference(network(), reference=torch.randn(4, 3))
        with pytest.raises(BatchError, match="first argument only: this call has more with tensors"):
            served(torch.randn(1, 3), scale=torch.ones(1))
        with pytest.raises(BatchError, match="fills a tensor, and this call has ndarray"):
            served(torch.randn(1, 3).numpy())

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


class TestMode:
    @pytest.mark.parametrize("mode", [True, False])
    def test_the_wrapper_has_the_mode_of_its_model_at_any_time(self, mode):
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train(mode)
        served = RandomizedCodedInference(model)
        assert served.training is mode
        model.train(not mode)  # the model's own switch
        assert served.training is not mode
        served.train(mode)  # the wrapper's: for all modules inside
        assert all(module.training is mode for module in served.modules())
        twin = copy.deepcopy(served.eval())
        assert not twin.training
        assert twin.train().model.training
        assert not served.training

    def test_a_frozen_part_keeps_its_mode(self):
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
        model[1].eval()
        served = RandomizedCodedInference(model)
        assert (served.training, model.training, model[1].training) == (True, True, False)

    @pytest.mark.parametrize("mode", [True, False])
    def test_an_attack_library_that_restores_the_mode_restores_the_right_one(self, mode):
        model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train(mode)
        served = RandomizedCodedInference(model)
        given = served.training  # torchattacks 3.5.1, attack.py, __call__ and _recover_model_mode
        served.eval()
        served(torch.randn(4, 3))
        if given:
            served.train()
        assert all(module.training is mode for module in served.modules())

    @pytest.mark.parametrize("mode", [True, False])
    def test_torchattacks_leaves_the_network_in_its_mode(self, mode):
        torchattacks = pytest.importorskip("torchattacks")
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).train(mode)
        served = RandomizedCodedInference(model)
        attack = torchattacks.PGD(served, eps=0.1, alpha=0.05, steps=2)
        attack(torch.rand(6, 3, 2, 2), torch.randint(4, (6,)))
        assert all(module.training is mode for module in served.modules())

    def test_foolbox_does_not_warn_of_a_network_in_eval_mode(self, recwarn):
        foolbox = pytest.importorskip("foolbox")
        served = RandomizedCodedInference(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).eval())
        foolbox.PyTorchModel(served, bounds=(0, 1))
        assert not [warning for warning in recwarn if "training mode" in str(warning.message)]


class Beside(nn.Module):
    """A network with a coded block, and further outputs that are given one by one, a set for each forward."""

    def __init__(self, *outputs):
        super().__init__()
        self.body, self.outputs, self.calls = nn.Linear(3, 4), outputs, 0

    def forward(self, x):
        self.calls += 1
        return self.body(x), self.outputs[(self.calls - 1) % len(self.outputs)]


def joined(*outputs, votes=None, **options):
    """The further output after as many votes as there are sets."""
    served = RandomizedCodedInference(Beside(*outputs), blocks=["body"], votes=votes or len(outputs), **options)
    return served(torch.randn(4, 3))[1]


class TestVotes:
    @pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
    def test_integers_get_the_value_of_most_votes_and_ties_that_of_the_earliest(self, dtype):
        votes = torch.tensor([[4, 7, 3, 1], [5, 7, 9, 2], [5, 2, 9, 3], [4, 7, 9, 4]], dtype=dtype)
        result = joined(*votes)
        assert result.dtype == dtype
        assert result.tolist() == [4, 7, 9, 1]  # two against two, three against one, three against one, all differ

    def test_booleans_stay_booleans(self):
        votes = torch.tensor([[True, False, True], [False, False, True], [False, True, True]])
        assert torch.equal(joined(*votes), torch.tensor([False, False, True]))

    def test_one_vote_leaves_integers_as_they_are(self):
        number = torch.tensor([1, 2**53 + 1])  # a division would give a float, and lose the last bit
        assert joined(number).dtype == torch.int64
        assert torch.equal(joined(number), number)

    def test_classes_from_logits_outside_the_block_are_voted_for(self):
        class Labelling(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 4))

            def forward(self, x):
                logits = self.body(x)
                return {"logits": logits, "label": logits.argmax(1), "sure": logits.amax(1) > 0.5}

        torch.manual_seed(0)
        model, x = Labelling(), 3 * torch.randn(60, 3)
        single = RandomizedCodedInference(copy.deepcopy(model), 1.0, blocks=["body"], seed=3)
        runs = [single(x) for _ in range(5)]
        output = RandomizedCodedInference(model, 1.0, blocks=["body"], seed=3, votes=5)(x)
        for row, label in zip(torch.stack([run["label"] for run in runs], 1).tolist(), output["label"], strict=True):
            most = max(map(row.count, row))
            assert label == next(each for each in row if row.count(each) == most)
        assert torch.equal(output["sure"], torch.stack([run["sure"] for run in runs]).sum(0) > 2)
        assert len({tuple(run["label"].tolist()) for run in runs}) > 1  # the votes do differ

    def test_a_bank_is_cut_off_integers_too(self):
        labels = torch.arange(7)
        result = joined(labels, labels, reference=torch.randn(6, 3), votes=2)
        assert torch.equal(result, torch.arange(4))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_summed_in_float32(self, dtype):
        # In bfloat16, 256 + 1 is 256, so a sum of 512 ones stays at 256 and their mean would be 0.5.
        ones = torch.ones(2, dtype=dtype)
        assert torch.equal(joined(ones, votes=4096 if dtype == torch.float16 else 512), ones)

    def test_complex_outputs_are_averaged(self):
        result = joined(torch.tensor([1 + 2j]), torch.tensor([3 - 4j]))
        assert torch.equal(result, torch.tensor([2 - 1j]))

    @pytest.mark.parametrize(
        ("outputs", "message"),
        [
            ((0.25, 0.5), "0.25 and 0.5"),
            (("cat", "dog"), "'cat' and 'dog'"),
            ((3, None), "3 and None"),
            ((np.ones(2), np.zeros(2)), "array"),
            ((torch.zeros(4, 1), torch.zeros(4, 5)), r"\(4, 1\) and .* \(4, 5\)"),
            ((torch.zeros(4), torch.zeros(4).long()), "int64"),
            ((torch.zeros(4), [torch.zeros(4)]), "structure"),
        ],
    )
    def test_votes_that_can_not_be_joined_are_refused(self, outputs, message):
        with pytest.raises(BatchError, match=message):
            joined(*outputs)

    def test_equal_numbers_words_and_unknown_objects_pass(self):
        cache = [object(), object()]
        for index, outputs in enumerate([(2.5, 2.5), (float("nan"),) * 2, ("cat", "cat"), (None, None), cache]):
            assert joined(*outputs) is outputs[1], index

    @pytest.mark.parametrize("votes", [0, -1, 1.5])
    def test_votes_are_a_number_of_forwards(self, votes):
        with pytest.raises(CodeError, match=f"votes={votes}"):
            RandomizedCodedInference(network(), votes=votes)
