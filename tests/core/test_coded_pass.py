"""What the coded pass shares with the plain one and what it leaves alone."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from cs_gan import CodedSmoothing, SplineCode
from cs_gan.errors import BatchError
from tests.core.helpers import Function, observed


def statistics(norm):
    return {name: buffer.clone() for name, buffer in norm.named_buffers()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


NORMS = {
    "batch norm": (lambda: nn.BatchNorm1d(3), (8, 3)),
    "batch norm, 2d": (lambda: nn.BatchNorm2d(3), (8, 3, 4, 4)),
    "cumulative": (lambda: nn.BatchNorm1d(3, momentum=None), (8, 3)),
    "instance norm": (lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True), (8, 3, 5)),
}


@pytest.mark.parametrize("kind", NORMS)
class TestBatchNorm:
    def run(self, kind, policy, calls=1, poison=False, context="observe"):
        """A norm layer after ``calls`` observed calls, its twin without observe, and the penalty."""
        make, shape = NORMS[kind]
        norm, twin = make(), make()
        block = nn.Sequential(norm, nn.Tanh())
        if poison:  # a coded sample beyond the plain batch's range overflows
            norm.register_forward_pre_hook(lambda _, args: args[0] * (float("nan") if len(args[0]) == 12 else 1))
        coded = CodedSmoothing(block, [""], 1.5, batch_norm=policy)
        for _ in range(calls):
            x = torch.randn(shape) * 2 + 1
            twin(x)
            with getattr(coded, context)():
                block(x)
        return norm, twin, coded, x

    @pytest.mark.parametrize("policy", ["keep", "running"])
    @pytest.mark.parametrize("poison", [False, True])
    def test_keep_and_running_leave_statistics_and_count_as_the_plain_pass_left_them(self, kind, policy, poison):
        norm, twin, *_ = self.run(kind, policy, calls=3, poison=poison)
        assert same(statistics(norm), statistics(twin))

    def test_update_lets_the_coded_batch_enter(self, kind):
        norm, twin, _, x = self.run(kind, "update")
        twin(SplineCode(8, 12).encode(x))
        for name, value in statistics(norm).items():
            torch.testing.assert_close(value, statistics(twin)[name], rtol=1e-5, atol=1e-6)
        if kind != "instance norm":  # which does not count
            assert norm.num_batches_tracked.item() == 2

    def test_policies_normalise_by_what_they_say(self, kind):
        code = SplineCode(8, 12)
        for policy in ("keep", "update", "running"):
            norm, twin, coded, x = self.run(kind, policy)
            plain = torch.tanh(copy.deepcopy(twin)(x))
            if policy == "running":
                twin.eval()
            expected = (code.decode(torch.tanh(twin(code.encode(x)))) - plain).square().mean()
            torch.testing.assert_close(coded.penalty(), expected, rtol=1e-4, atol=1e-8)
            assert norm.training
            assert norm.track_running_stats

    @pytest.mark.parametrize("policy", ["keep", "update", "running"])
    def test_eval_mode_uses_running_statistics_and_changes_nothing(self, kind, policy):
        make, shape = NORMS[kind]
        block, x = nn.Sequential(make(), nn.Tanh()), torch.randn(shape)
        block(torch.randn(shape) * 3)
        block.eval()
        before, code = statistics(block), SplineCode(8, 12)
        penalty = observed(CodedSmoothing(block, [""], 1.5, batch_norm=policy), lambda: block(x))
        assert same(statistics(block), before)
        assert not block[0].training
        expected = (code.decode(block(code.encode(x))) - block(x)).square().mean()
        torch.testing.assert_close(penalty, expected, rtol=1e-5, atol=1e-9)

    def test_keep_holds_in_substitute_too(self, kind):
        norm, *_ = self.run(kind, "keep", context="substitute")
        assert same(statistics(norm), statistics(NORMS[kind][0]()))


def old_style(function):
    def make(layer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated, and still in many published critics
            return function(layer)

    return make


REPARAMETRISED = {
    "spectral norm": parametrizations.spectral_norm,
    "spectral norm, old style": old_style(nn.utils.spectral_norm),
    "weight norm": parametrizations.weight_norm,
    "weight norm, old style": old_style(nn.utils.weight_norm),
}


@pytest.mark.parametrize("kind", REPARAMETRISED)
class TestReparametrisedWeights:
    def layer(self, kind, width=24):
        torch.manual_seed(5)
        return REPARAMETRISED[kind](nn.Linear(width, width))

    def test_backward_works_after_two_calls_in_one_context(self, kind):
        block = nn.Sequential(self.layer(kind), nn.Tanh())
        coded = CodedSmoothing(block, [""], 1.5)
        with coded.observe():
            score = block(torch.randn(8, 24)).mean() - block(torch.randn(8, 24)).mean()
        (score + coded.penalty()).backward()
        assert all(p.grad.isfinite().all() for p in block.parameters())

    def test_a_layer_used_twice_in_the_block_keeps_its_own_pace(self, kind):
        block, twin = (nn.Sequential(*[self.layer(kind)] * 2) for _ in range(2))
        x = torch.randn(8, 24)
        coded = CodedSmoothing(block, [""], 1.5, decoder_kind="zero-forcing")
        for _ in range(2):
            with coded.observe():
                output = block(x)
            assert torch.equal(output, twin(x))
            assert same(block.state_dict(), twin.state_dict())
            # The block is affine and D E = I, so only rounding is left if each use has the weight that it
            # had in the plain pass. Old-style spectral norm keeps the last of them alone (off by 1e-2).
            assert coded.penalty().item() < (0.05 if kind == "spectral norm, old style" else 1e-9)

    def test_substitute_uses_the_weight_of_now_not_of_the_last_forward(self, kind):
        trained, served = nn.Sequential(self.layer(kind)).eval(), nn.Sequential(self.layer(kind)).eval()
        with torch.no_grad():
            for parameter in trained.parameters():
                parameter.mul_(torch.rand_like(parameter))
        served(torch.randn(8, 24))
        served.load_state_dict(trained.state_dict())
        x = torch.randn(8, 24)
        with CodedSmoothing(served, [""], 1.0, decoder_kind="zero-forcing").substitute():
            output = served(x)
        # An affine block with D E = I: what comes out is the plain output, in float32.
        torch.testing.assert_close(output, trained(x), rtol=0, atol=1e-4)

    def test_substitute_in_training_steps_the_power_iteration_once(self, kind):
        block, twin, x = nn.Sequential(self.layer(kind)), nn.Sequential(self.layer(kind)), torch.randn(8, 24)
        with CodedSmoothing(block, [""], 1.5).substitute():
            block(x)
        twin(x)
        assert same(block.state_dict(), twin.state_dict())

    def test_hooks_of_the_layer_keep_their_order(self, kind):
        layer = self.layer(kind)
        layer.register_forward_pre_hook(lambda *_: None)
        before = list(layer._forward_pre_hooks.items())
        observed(CodedSmoothing(layer, [""]), lambda: layer(torch.randn(8, 24)))
        assert list(layer._forward_pre_hooks.items()) == before
        assert not parametrize._cache_enabled


class TestDropout:
    def mask_of(self, make, K, ratio, shape=(3,), share=True, context="observe"):
        """What dropout multiplied ones by, in the plain and in the coded pass."""
        seen, block = [], nn.Sequential(nn.Identity(), make())
        block.register_forward_hook(lambda module, args, output: seen.append(output))
        coded = CodedSmoothing(block, [""], ratio, share_dropout=share)
        with getattr(coded, context)():
            block(torch.ones(K, *shape))
        return seen

    KINDS = (
        (lambda: nn.Dropout(0.5), (7,)),
        (lambda: nn.Dropout(0.5, inplace=True), (7,)),
        (lambda: nn.Dropout1d(0.5), (7, 5)),
        (lambda: nn.Dropout2d(0.3), (7, 5, 5)),
        (lambda: nn.Dropout3d(0.3), (7, 2, 2, 2)),
    )

    @pytest.mark.parametrize(("make", "shape"), KINDS)
    def test_sharing_gives_each_coded_sample_the_mask_of_its_nearest_data_sample(self, make, shape):
        for K, ratio in [(8, 1.0), (8, 1.5), (8, 0.75)]:
            plain, coded = self.mask_of(make, K, ratio, shape)
            code = SplineCode(K, round(K * ratio))
            # Ones stay ones through the code up to rounding, so outputs are the masks.
            torch.testing.assert_close(coded, plain[code.nearest()], rtol=1e-5, atol=0)
            assert 0 < plain.count_nonzero() < plain.numel()

    def test_without_sharing_the_coded_pass_draws_its_own(self):
        plain, coded = self.mask_of(lambda: nn.Dropout(0.5), 9, 1.0, (50,), share=False)
        assert not torch.equal(coded == 0, plain == 0)

    def test_sharing_disturbs_no_output_and_no_random_stream(self):
        model = nn.Sequential(nn.Dropout(0.3), nn.Linear(3, 5), nn.Dropout(0.5), nn.Tanh(), nn.Dropout(0.1))
        x = torch.randn(8, 3)
        torch.manual_seed(7)
        bare, after = model(x), torch.randn(4)
        for blocks in ([""], ["0", "2"], ["", "2"]):
            coded = CodedSmoothing(model, blocks, 1.5, share_dropout=True)
            torch.manual_seed(7)
            with coded.observe():
                assert torch.equal(model(x), bare)
            assert torch.equal(torch.randn(4), after)
            coded.detach()

    def test_a_dropout_used_twice_replays_its_masks_in_turn(self):
        block, seen = Function(lambda x: (block.dropout(x), block.dropout(input=x))), []
        block.dropout = nn.Dropout(0.5)
        block.register_forward_hook(lambda module, args, output: seen.append(output))
        with CodedSmoothing(block, [""], 1.0, share_dropout=True).observe():
            block(torch.ones(8, 20))
        for plain, coded in zip(*seen, strict=True):
            assert torch.equal(plain == 0, coded == 0)
        assert not torch.equal(seen[0][0], seen[0][1])

    def test_gradient_goes_through_the_shared_mask(self):
        block, x = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).double(), torch.randn(8, 3).double()
        coded = CodedSmoothing(block, [""], 1.0, share_dropout=True)
        with coded.observe():
            output = block(x)
        mask = (output != 0) * 2.0
        code = SplineCode(8, 8)
        expected = (code.decode(block[0](code.encode(x)) * mask) - block[0](x) * mask).square().mean()
        torch.testing.assert_close(coded.penalty(), expected, rtol=1e-9, atol=0)
        ours, theirs = (torch.autograd.grad(p, block[0].weight)[0] for p in (coded.penalty(), expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)

    def test_a_dropout_without_the_batch_axis_first_is_refused_by_name(self):
        block = Function(lambda x: block.dropout(x.T).T)
        block.dropout = nn.Dropout(0.5)
        coded = CodedSmoothing(block, [""], 1.5, share_dropout=True)
        with pytest.raises(BatchError, match="share_dropout"), coded.observe():
            block(torch.randn(8, 3))
        assert block.dropout.training
        assert not block.dropout._forward_hooks
