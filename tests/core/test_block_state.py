"""Coded samples leave no trace in what a block keeps between calls."""

import threading
from collections import deque

import pytest
import torch
from torch import nn

from cs_gan import CodedSmoothing
from cs_gan.errors import BatchError, BlockError
from tests.contract.stateful import Cache, VectorQuantiser
from tests.core.helpers import Function, hook_count, mlp, observed


class Keeper(nn.Module):
    """Keeps state in every way at once, and in a module inside it."""

    def __init__(self):
        super().__init__()
        self.linear, self.inner = nn.Linear(3, 3), Counter4()
        self.register_buffer("total", torch.zeros(3))
        self.plain_tensor, self.calls, self.sizes, self.by_size, self.seen = torch.zeros(3), 0, [], {}, set()
        self.twin = nn.Parameter(torch.ones(3))

    def forward(self, x):
        h = self.inner(self.linear(x))
        self.total = self.total + h.detach().sum(0)  # another tensor in the buffer's place
        self.plain_tensor += h.detach().sum(0)
        self.calls += 1
        self.sizes.append(len(x))
        self.by_size[len(x)] = h.detach()
        self.seen.add(len(x))
        self.latest = h.detach()
        if len(x) == 9:  # only coded samples come in nines
            self.only_coded = True
        self.twin = nn.Parameter(self.twin + 1)  # a new parameter in the old one's place
        return h * self.twin


class Counter4(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("samples", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.samples += len(x)
        return x.tanh()


def kept(keeper):
    return {
        **{name: value.tolist() for name, value in keeper.state_dict().items()},
        **{name: getattr(keeper, name) for name in ("calls", "sizes", "seen")},
        "plain_tensor": keeper.plain_tensor.tolist(),
        "by_size": sorted(keeper.by_size),
        "latest": keeper.latest.shape,
        "names": sorted(vars(keeper)),
    }


def keepers():
    first, second = Keeper(), Keeper()
    second.load_state_dict(first.state_dict())
    return first, second


class TestObserve:
    def test_all_state_is_what_one_plain_pass_leaves(self):
        keeper, twin = keepers()
        coded = CodedSmoothing(keeper, [""])
        for _ in range(3):
            x = torch.randn(6, 3)
            assert observed(coded, lambda: keeper(x)) > 0  # noqa: B023
            twin(x)
            assert kept(keeper) == kept(twin)

    def test_update_lets_coded_samples_in(self):
        keeper, x = Keeper(), torch.randn(6, 3)
        observed(CodedSmoothing(keeper, [""], batch_norm="update"), lambda: keeper(x))
        assert keeper.inner.samples == 6 + 9
        assert keeper.sizes == [6, 9]

    def test_it_is_put_back_after_an_error_too(self):
        class Fails(Counter4):
            def forward(self, x):
                y = super().forward(x)
                if len(x) == 9:
                    raise ValueError("of coded samples")
                return y

        block = Fails()
        with pytest.raises(ValueError, match="of coded samples"):
            observed(CodedSmoothing(block, [""]), lambda: block(torch.randn(6, 3)))
        assert block.samples == 6
        assert hook_count(block) == 0

    def test_a_buffer_that_two_modules_share_has_one_copy(self):
        first, second = Counter4(), Counter4()
        second.samples = first.samples
        seen = []
        block = nn.Sequential(first, Function(lambda x: seen.append(second.samples.item()) or x), second)
        observed(CodedSmoothing(block, [""]), lambda: block(torch.randn(6, 3)))
        assert seen == [6, 12 + 9]  # the coded pass sees its own count
        assert first.samples is second.samples
        assert first.samples == 12

    def test_the_plain_backward_still_has_what_it_saved(self):
        class Saves(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("scale", torch.ones(3))
                self.weight = nn.Parameter(torch.ones(3))

            def forward(self, x):
                self.scale = self.scale.clone().mul_(1.5)
                return (x * self.weight * self.scale).tanh()

        block, twin, x = Saves(), Saves(), torch.randn(6, 3)
        coded = CodedSmoothing(block, [""])
        with coded.observe():
            y = block(x)
        y.sum().backward(retain_graph=True)
        twin(x).sum().backward()
        assert torch.equal(block.weight.grad, twin.weight.grad)
        coded.penalty().backward()

    def test_frozen_parameters_that_the_block_changes_are_kept_from_the_first_pass_on(self):
        block, twin = VectorQuantiser(frozen=True), VectorQuantiser(frozen=True)
        twin.load_state_dict(block.state_dict())
        coded = CodedSmoothing(block, [""])
        for _ in range(3):
            x = torch.randn(6, 4)
            observed(coded, lambda: block(x))  # noqa: B023
            twin(x)
            assert all(torch.equal(a, b) for a, b in zip(block.parameters(), twin.parameters(), strict=True))

    def test_those_that_change_only_in_training_mode_are_kept_too_if_the_first_pass_was_in_eval_mode(self):
        block, twin = VectorQuantiser(frozen=True).eval(), VectorQuantiser(frozen=True)
        twin.load_state_dict(block.state_dict())
        coded, x = CodedSmoothing(block, [""]), torch.randn(6, 4)
        observed(coded, lambda: block(x))
        observed(coded, lambda: block.train()(x))
        twin(x)
        assert all(torch.equal(a, b) for a, b in zip(block.parameters(), twin.parameters(), strict=True))

    def test_a_frozen_parameter_that_grows_is_put_back(self):
        def grow(x):
            block.bank = nn.Parameter(torch.cat([block.bank, x.detach()]), requires_grad=False)
            return (x @ block.bank.T).tanh().mean(1, keepdim=True) * x

        block = Function(grow)
        block.bank = nn.Parameter(torch.randn(2, 3), requires_grad=False)
        coded = CodedSmoothing(block, [""])
        for call in (1, 2):
            observed(coded, lambda: block(torch.randn(6, 3)))
            assert block.bank.shape == (2 + 6 * call, 3)

    def test_frozen_parameters_that_stay_are_not_copied_in_every_step(self):
        block = mlp().requires_grad_(False)
        coded = CodedSmoothing(block, [""])
        held = []
        block.register_forward_pre_hook(lambda module, _: held.append(module[0].weight))
        for _ in range(2):
            observed(coded, lambda: block(torch.randn(6, 3)))
        plain, first, _, second = held
        assert first is not plain  # the first coded pass finds out
        assert second is plain

    def test_nan_in_a_parameter_is_no_change(self):
        block = mlp()
        with torch.no_grad():
            block[0].weight[0] = float("nan")
        observed(CodedSmoothing(block, [""]), lambda: block(torch.randn(6, 3)))

    @pytest.mark.parametrize("context", ["observe", "substitute"])
    def test_a_trained_parameter_that_the_block_changes_is_refused_by_name(self, context):
        def change(x):
            block.linear.weight.data.mul_(0.9)  # the contract's kind does it under no_grad
            return block.linear(x)

        block = Function(change)
        block.linear = nn.Linear(3, 3)
        with (
            pytest.raises(BlockError, match=r"changes its parameters \['linear.weight'\] .*register_b"),
            getattr(CodedSmoothing(block, [""]), context)(),
        ):
            block(torch.randn(6, 3))


class TestSubstitute:
    def test_no_state_moves_since_all_samples_are_coded(self):
        keeper, twin = keepers()
        with CodedSmoothing(keeper, [""]).substitute():
            keeper(torch.randn(6, 3))
        assert {**keeper.state_dict()}.keys() == {**twin.state_dict()}.keys()
        assert all(torch.equal(keeper.state_dict()[name], value) for name, value in twin.state_dict().items())
        assert (keeper.calls, keeper.sizes, sorted(vars(keeper))) == (0, [], sorted(vars(twin)))


class Slots:
    __slots__ = ("tensor", "unset")

    def __init__(self, tensor):
        self.tensor = tensor


class TestObjects:
    def call(self, argument, function=lambda x, _: x.tanh(), context="observe"):
        block = Function(function)
        with getattr(CodedSmoothing(block, [""]), context)():
            return block(torch.randn(6, 3), argument)

    @pytest.mark.parametrize("context", ["observe", "substitute"])
    @pytest.mark.parametrize(
        "change",
        [
            lambda cache: cache.layers.append(1),
            lambda cache: setattr(cache, "count", 1),
            lambda cache: cache.values.add_(1),
            lambda cache: cache.nested["inner"].append(None),
            lambda cache: cache.queue.append(1),
            lambda cache: setattr(cache, "values", cache.values + 1),
        ],
    )
    def test_one_that_changes_is_refused(self, context, change):
        cache = Cache()
        cache.values, cache.nested, cache.queue = torch.zeros(3), {"inner": []}, deque()
        with pytest.raises(BatchError, match=r"changes its argument number 2 \(Cache\) .*use_cache=False"):
            self.call(cache, lambda x, cache: (change(cache), x.tanh())[1], context)

    @pytest.mark.parametrize("wrap", [Slots, lambda x: [Slots(x)], lambda x: {"a": (Slots([x]),)}])
    def test_one_that_holds_tensors_of_the_batch_is_refused(self, wrap):
        with pytest.raises(BatchError, match="holds tensors of the batch: they would not be encoded"):
            self.call(wrap(torch.randn(6, 2)))

    def test_one_that_stays_and_holds_nothing_of_the_batch_passes(self):
        cycle = Cache()
        cycle.layers.append(cycle)
        for argument in (Cache(), cycle, Slots(torch.ones(3)), nn.Linear(6, 6), len, torch.Generator(), torch.float32):
            self.call(argument)
            self.call(argument, context="substitute")

    def test_it_is_named_by_its_keyword(self):
        block = Function(lambda x, cache: cache.layers.append(1) or x)
        with pytest.raises(BatchError, match=r"its argument 'cache' \(Cache\)"), CodedSmoothing(block, [""]).observe():
            block(torch.randn(6, 3), cache=Cache())


class TestContexts:
    @pytest.mark.parametrize("context", ["observe", "substitute"])
    def test_vmap_is_refused_by_name(self, context):
        model = mlp()
        coded = CodedSmoothing(model, ["0"])
        with pytest.raises(BlockError, match=r"inside torch\.func\.vmap"), getattr(coded, context)():
            torch.func.vmap(model)(torch.randn(2, 6, 3))

    def test_a_gradient_by_torch_func_is_not_vmap(self):
        model, x = mlp(), torch.randn(6, 3)
        coded = CodedSmoothing(model, ["0"])

        def penalty(x):
            with coded.observe():
                model(x)
            return coded.penalty()

        slope = torch.func.grad(penalty)(x)
        x.requires_grad_()
        torch.testing.assert_close(slope, torch.autograd.grad(penalty(x), x)[0])

    def test_another_thread_is_told_so(self):
        model = mlp()
        coded = CodedSmoothing(model, ["0"])
        errors = []

        def enter():
            try:
                with coded.observe():
                    pass
            except BlockError as error:
                errors.append(str(error))

        with coded.observe():
            thread = threading.Thread(target=enter)
            thread.start()
            thread.join()
            with pytest.raises(BlockError, match=r"observe\(\) inside observe\(\)"), coded.observe():
                pass
        assert "another thread or task is inside observe()" in errors[0]

    @pytest.mark.parametrize("context", ["observe", "substitute"])
    def test_a_block_that_was_replaced_is_named(self, context):
        model = mlp()
        coded = CodedSmoothing(model, ["0"])
        model[0] = nn.Linear(3, model[0].out_features)

        def run():
            with getattr(coded, context)():
                model(torch.randn(6, 3))
            coded.penalty()

        with pytest.raises(BlockError, match=r"\['0'\] are no longer part of the model"):
            run()

    def test_a_copy_of_dataparallel_is_refused(self):
        model = mlp()
        coded = CodedSmoothing(model, ["0"])
        model[0]._is_replica = True  # as torch.nn.parallel.replicate marks its copies
        with pytest.raises(BlockError, match="a copy that DataParallel made"), coded.observe():
            model(torch.randn(6, 3))
