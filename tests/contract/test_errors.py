"""What can't be coded says why and what to do instead, where no kind of block in the table says it."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from cs_gan import CodedSmoothing, RandomizedCodedInference
from cs_gan.core.nestings import leaves_of, map_leaves
from cs_gan.errors import BatchError, BlockError, CodeError
from tests.core.helpers import Function, hook_count, mlp, observed


def recompute_all(_context, _op, *_args, **_kwargs):
    return CheckpointPolicy.PREFER_RECOMPUTE


class TestCheckpoint:
    @pytest.mark.parametrize(
        ("context", "options", "message"),
        [
            ("observe", {"use_reentrant": True}, "use_reentrant=False"),
            ("substitute", {"use_reentrant": True}, "use_reentrant=False"),
            ("substitute", {"use_reentrant": False}, "another permutation or none. Checkpoint inside"),
            (
                "observe",
                {
                    "use_reentrant": False,
                    "context_fn": lambda: create_selective_checkpoint_contexts(recompute_all),
                },
                "leave context_fn out",
            ),
        ],
    )
    def test_one_that_would_train_on_something_else_is_refused_in_the_forward(self, context, options, message):
        model, x = mlp(), torch.randn(6, 3, requires_grad=True)
        coded = CodedSmoothing(model, ["0"])
        with pytest.raises(BlockError, match=message), getattr(coded, context)():
            checkpoint(model, x, **options)
        assert hook_count(model) == 0
        assert observed(coded, lambda: model(x)).item() > 0

    @pytest.mark.parametrize("share_dropout", [True, False])
    def test_dropout_after_the_coded_block_meets_the_same_masks_again(self, share_dropout):
        # The coded pass draws between the two plain dropouts; the recomputation has no coded pass.
        model = nn.Sequential(
            nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5)), nn.Linear(8, 8), nn.Dropout(0.5)
        ).double()
        coded = CodedSmoothing(model, ["0"], share_dropout=share_dropout)
        x = torch.randn(6, 3).double()
        with coded.observe():
            output = checkpoint(model, x, use_reentrant=False)
        output.sum().backward()
        # d output.sum() / d bias of the linear layer is the number of kept units, times 2: the masks of the forward.
        kept = (output != 0).sum(0) * 2.0
        assert torch.equal(model[1].bias.grad, kept.double())


@pytest.mark.filterwarnings("ignore")  # of scripting, which is deprecated, and of tracing
class TestCompiled:
    def test_a_script_module_is_refused_and_a_block_that_holds_it_is_not(self):
        with pytest.raises(BlockError, match="takes no hooks: code the module that it was made from"):
            CodedSmoothing(nn.Sequential(torch.jit.script(mlp())), ["0"])
        model = nn.Sequential(torch.jit.script(mlp()))
        assert observed(CodedSmoothing(model, [""]), lambda: model(torch.randn(6, 3))).item() > 0

    def test_a_script_function_is_no_block_but_may_be_in_one(self):
        scripted = torch.jit.trace(torch.tanh, torch.randn(2, 3))
        with pytest.raises(BlockError, match="ScriptFunction: give names, patterns or modules"):
            CodedSmoothing(mlp(), [scripted])
        block = Function(scripted)
        assert observed(CodedSmoothing(block, [""]), lambda: block(torch.randn(6, 3))).item() > 0

    def test_a_model_compiled_and_run_before_the_context_is_refused_in_both(self):
        model, x = mlp(), torch.randn(6, 3)
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="eager")
        compiled(x)
        coded = CodedSmoothing(model, ["0"])
        with pytest.raises(BlockError, match="compile the coded block, not what holds it"):
            observed(coded, lambda: compiled(x))
        with pytest.raises(BlockError, match=r"inside substitute\(\).*compile the coded block"), coded.substitute():
            compiled(x)

    def test_a_model_that_first_runs_inside_the_context_is_coded(self):
        model, x = mlp(), torch.randn(6, 3)
        coded = CodedSmoothing(model, ["0"])
        expected = observed(coded, lambda: model(x))
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="eager")
        for _ in range(2):
            torch.testing.assert_close(observed(coded, lambda: compiled(x)), expected)
            assert torch.equal(compiled(x), model(x))


class TestBatchAxis:
    def test_a_name_that_is_not_coded_is_refused(self):
        with pytest.raises(BlockError, match=r"batch_axis names \['2'\], .* \['0'\]"):
            CodedSmoothing(mlp(), ["0"], batch_axis={"2": 1})

    def test_shared_dropout_needs_the_batch_in_front(self):
        with pytest.raises(BlockError, match="share_dropout needs the batch as first axis"):
            CodedSmoothing(mlp(), ["0"], batch_axis=1, share_dropout=True)

    @pytest.mark.parametrize("axis", [2, -1])
    def test_any_axis_is_that_axis_moved_to_the_front(self, axis):
        block, x = Function(torch.tanh), torch.randn(3, 4, 6).double()
        penalty = observed(CodedSmoothing(block, [""], batch_axis=axis), lambda: block(x))
        block = Function(torch.tanh)
        expected = observed(CodedSmoothing(block, [""]), lambda: block(x.movedim(2, 0)))
        torch.testing.assert_close(penalty, expected, rtol=1e-10, atol=0)

    def test_a_packed_sequence_is_refused(self):
        block, packed = nn.GRU(2, 2), pack_sequence([torch.randn(3, 2), torch.randn(2, 2)])
        with pytest.raises(BatchError, match="PackedSequence, whose samples have different lengths"):
            observed(CodedSmoothing(block, [""]), lambda: block(packed))

    def test_a_bank_fills_the_axis_of_the_batch_and_is_dropped_from_every_output(self):
        model, bank, x = nn.GRU(2, 3).double(), torch.randn(4, 5, 2).double(), torch.randn(4, 1, 2).double()
        served = RandomizedCodedInference(model, reference=bank, seed=2)
        output, state = served(x)
        assert output.shape == (4, 1, 3)
        assert state.shape == (1, 1, 3)
        served.coded.detach()
        filled = RandomizedCodedInference(model, seed=2)(torch.cat([x, bank], 1))
        assert torch.equal(output, filled[0][:, :1])
        assert torch.equal(state, filled[1][:, :1])

    def test_an_input_without_the_axis_is_refused_by_the_module_for_serving(self):
        served = RandomizedCodedInference(mlp(), batch_axis=2)
        with pytest.raises(BatchError, match=r"\(6, 3\) has no batch axis 2"):
            served(torch.randn(6, 3))

    def test_a_mapping_may_name_the_axis_of_a_model_that_is_not_coded_itself(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Tanh()).double()
        served = RandomizedCodedInference(
            model, blocks=["1"], batch_axis={"": 1, "1": 1}, reference=torch.randn(3, 4, 2).double()
        )
        assert served(torch.randn(3, 1, 2).double()).shape == (3, 1, 2)


class TestIntegers:
    def test_an_unknown_choice_is_refused(self):
        with pytest.raises(CodeError, match="choose one of refuse, nearest"):
            CodedSmoothing(mlp(), ["0"], discrete="round")

    def test_integers_alone_are_refused_with_nearest_too(self):
        block = nn.Embedding(3, 2)
        with pytest.raises(BatchError, match=r"integers alone can't be coded\. Choose the block after"):
            observed(CodedSmoothing(block, [""], discrete="nearest"), lambda: block(torch.tensor([0, 1, 2])))


@dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    inner: "Frozen | None" = None
    count: int = field(default=0, init=False)


class TestNestings:
    def test_dataclasses_open_at_any_depth_and_keep_the_rest(self):
        tree = {"a": [Frozen(torch.ones(2), Frozen(torch.zeros(3)))], "b": Frozen}
        leaves, structure = leaves_of(tree)
        assert [leaf.shape for leaf in leaves if isinstance(leaf, torch.Tensor)] == [(2,), (3,)]
        twin = map_leaves(lambda leaf: leaf + 1 if isinstance(leaf, torch.Tensor) else leaf, tree)
        assert leaves_of(twin)[1] == structure
        assert twin["b"] is Frozen
        assert torch.equal(twin["a"][0].inner.x, torch.ones(3))
        assert torch.equal(tree["a"][0].inner.x, torch.zeros(3))

    def test_structures_differ_where_a_dataclass_differs(self):
        other = leaves_of([Frozen(torch.ones(2), Frozen(torch.ones(2)))])[1]
        assert leaves_of([Frozen(torch.ones(2))])[1] != other

    def test_a_bank_fills_tensors_only(self):
        served = RandomizedCodedInference(Function(lambda given: given["x"]), reference=torch.randn(3, 2))
        with pytest.raises(BatchError, match="a reference bank fills a tensor"):
            served({"x": torch.randn(1, 2)})
