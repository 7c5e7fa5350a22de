"""The share of the gradient, and the weight that holds it, on losses whose gradients are known."""

import pytest
import torch
from torch import nn

from cs_gan import CodedSmoothing, HeldShare, Linear
from cs_gan.core import gradient_norms
from cs_gan.errors import CodeError
from tests.core.helpers import mlp


def along(direction, scale=1.0):
    """A scalar whose gradient by x is ``scale`` times the direction."""
    return lambda x: scale * (x * torch.tensor(direction)).sum()


def penalty_of(model, x):
    """Unweighted, of the whole model."""
    coded = CodedSmoothing(model, [""], 1.0, replace=True)
    with coded.observe():
        model(x)
    return coded.unweighted


class TestGradientNorms:
    def test_only_parameters_that_both_touch_count(self):
        shared, own, other = (nn.Parameter(torch.zeros(2)) for _ in range(3))
        penalty = along([3.0, 4.0])(shared) + along([100.0, 0.0])(own)
        loss = along([0.0, 2.0])(shared) + along([0.0, 100.0])(other)
        assert gradient_norms(penalty, loss, [shared, own, other]).tolist() == [5.0, 2.0]
        (penalty + loss).backward()  # both graphs are still there

    def test_without_any_both_are_0(self):
        x, y = (nn.Parameter(torch.zeros(2)) for _ in range(2))
        assert gradient_norms(x.sum(), y.sum(), [x, y]).tolist() == [0, 0]
        assert gradient_norms(torch.zeros(()), x.sum(), [x]).tolist() == [0, 0]
        assert gradient_norms(x.sum(), x.sum(), []).tolist() == [0, 0]
        frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
        assert gradient_norms((x + frozen).sum(), (2 * frozen + x).sum(), [frozen]).tolist() == [0, 0]

    def test_complex_parameters_count_with_both_parts(self):
        x = nn.Parameter(torch.zeros(1, dtype=torch.complex64))
        assert gradient_norms(3 * x.real.sum() + 4 * x.imag.sum(), x.imag.sum(), [x]).tolist() == [5, 1]

    def test_a_loss_without_a_graph_is_refused(self):
        x = nn.Parameter(torch.zeros(2))
        for loss in (x.sum().detach(), 1.0, x):
            with pytest.raises(CodeError, match="a scalar tensor with its graph"):
                gradient_norms(x.sum(), loss, [x])

    def test_half_precision_adds_up_in_single(self):
        x = nn.Parameter(torch.zeros(10_000, dtype=torch.bfloat16))
        assert gradient_norms(x.sum(), 2 * x.sum(), [x]).tolist() == [100, 200]


class TestHeldShare:
    def test_the_first_measurement_jumps_and_later_ones_follow_slowly(self):
        held, x = HeldShare(0.1, start=1e-3, decay=0.75, change=100.0), nn.Parameter(torch.zeros(2))
        loss, unit = along([0.0, 2.0])(x), along([3.0, 4.0])  # norms 2 and 5 times the weight
        share = held.follow(held.weight * unit(x), loss, [x])
        assert share.item() == pytest.approx(1e-3 * 5 / 2)
        assert held.weight.item() == pytest.approx(0.1 * 2 / 5)
        loss = along([0.0, 32.0])(x)  # 16 times as large: the weight goes a quarter of the way, in logarithms
        share = held.follow(held.weight * unit(x), loss, [x])
        assert share.item() == held.measured.item() == pytest.approx(0.1 / 16)
        assert held.weight.item() == pytest.approx(0.04 * 2)

    def test_a_gradient_that_vanishes_for_a_step_moves_it_by_no_more_than_the_limit(self):
        held, x = HeldShare(0.1, decay=0.0), nn.Parameter(torch.zeros(2))
        follow = lambda norm: held.follow(held.weight * x[0], norm * x[1] + norm * x[0], [x])
        follow(1.0)
        before = held.weight.item()
        for norm, factor in ((1e-12, 1 / 2), (1e12, 2), (0.0, 1), (float("nan"), 1), (float("inf"), 1)):
            follow(norm)
            assert held.weight.item() == pytest.approx(before * factor)
            before = held.weight.item()

    def test_the_weight_stays_within_its_bounds(self):
        held, x = HeldShare(0.1, bounds=(1e-4, 1e-2)), nn.Parameter(torch.zeros(1))
        held.follow(held.weight * 1e6 * x.sum(), x.sum(), [x])
        assert held.weight.item() == pytest.approx(1e-4)
        held = HeldShare(0.1, bounds=(1e-4, 1e-2))
        held.follow(held.weight * 1e-6 * x.sum(), x.sum(), [x])
        assert held.weight.item() == pytest.approx(1e-2)

    @pytest.mark.parametrize("share", [0.01, 0.1, 1.0])
    def test_it_holds_the_share_of_a_network_in_training(self, share):
        torch.manual_seed(0)
        model, x = mlp(16), torch.randn(64, 3)
        y = (2 * x[:, :2]).sin() + 0.3 * torch.randn(64, 2)
        held = HeldShare(share)
        coded = CodedSmoothing(model, [""], Linear(1.0, 1.5), weight=held)
        optimizer, shares = torch.optim.Adam(model.parameters(), 1e-2), []
        for step in range(100):
            coded.set_step(step, 100)
            with coded.observe():
                loss = (model(x) - y).square().mean()
            penalty = coded.penalty()
            assert penalty.item() == pytest.approx(coded.weight * coded.unweighted.item(), rel=1e-6)
            if step % 5 == 0:
                shares.append(held.follow(penalty, loss, model.parameters()).item())
            optimizer.zero_grad()
            (loss + penalty).backward()
            optimizer.step()
        assert shares[0] < 0.2 * share  # where it started from
        # It follows a network that learns, so it comes a little late, most of all at the start.
        assert all(0.5 * share < each < 2 * share for each in shares[8:])
        assert 0.75 * share < sum(shares[8:]) / len(shares[8:]) < 1.3 * share

    @pytest.mark.parametrize("measure", ["held.follow", "coded.share"])
    def test_with_every_it_holds_the_share_on_average(self, measure):
        """The penalty of a coded step has the factor ``every``; other steps change nothing."""
        model, x, held = mlp(16), torch.randn(16, 3), HeldShare(0.1)
        coded = CodedSmoothing(model, [""], 1.0, weight=held, every=4)
        follow = held.follow if measure == "held.follow" else coded.share
        for step in range(8):
            coded.set_step(step, 8)
            with coded.observe():
                loss = (model(x) - 1).square().mean()
            before = held.weight.item()
            share = follow(coded.penalty(), loss, model.parameters()).item()
            assert held.weight.item() == before or step in (0, 4)
            assert share == held.measured
        norms = gradient_norms(coded.weight * penalty_of(model, x), loss, model.parameters())
        assert (norms[0] / norms[1]).item() == pytest.approx(0.1, rel=1e-4)

    def test_processes_average_the_norms_where_the_gradients_are(self, reduced_on):
        """A CPU tensor would stop NCCL. Without a GPU, the meta device stands for it."""
        with pytest.raises(NotImplementedError, match="meta"):  # then it goes to the buffers, on the CPU
            HeldShare(0.1).adjust(torch.ones(2, device="meta"))
        assert reduced_on == ["meta"]

    def test_its_state_continues_to_the_bit(self):
        def run(held, steps, x=None):
            x = nn.Parameter(torch.tensor([1.0, -2.0])) if x is None else x
            for step in steps:
                held.follow(held.weight * x.square().sum(), (x * (step + 1)).sin().sum(), [x])
            return held

        whole, first, second = run(HeldShare(0.1), range(6)), run(HeldShare(0.1), range(3)), HeldShare(0.1)
        second.load_state_dict(first.state_dict())
        run(second, range(3, 6))
        assert torch.equal(whole.weight, second.weight)
        assert whole.count == second.count == 6

    def test_one_that_never_sees_the_gradient_is_an_error(self):
        """Otherwise its first weight stays, and coding does nothing for the whole training."""
        model, x, held = mlp(16), torch.randn(8, 3), HeldShare(0.03)
        coded = CodedSmoothing(model, [""], weight=held)
        with coded.observe():
            loss = model(x).square().mean()
        for _ in range(99):
            coded.penalty()
        with pytest.raises(CodeError, match=r"gave 100 penalties its first weight, .* never saw a gradient of both"):
            coded.penalty()
        held.follow(coded.penalty(), loss, model.parameters())
        for _ in range(300):  # later it may rest, as in an evaluation
            coded.penalty()
        kept = model.parameters()
        held.follow(coded.penalty(), loss, kept)
        with pytest.raises(CodeError, match="used up by the first"):
            held.follow(coded.penalty(), loss, kept)
        with pytest.raises(CodeError, match="used up by the first"):
            coded.share(coded.penalty(), loss, kept)

    @pytest.mark.parametrize(
        "given",
        [{"share": 0}, {"share": 3}, {"share": -1}, {"share": float("nan")}, {"decay": 1.0}, {"change": 1.0},
         {"start": 0.0}, {"bounds": (0.0, 1.0)}, {"bounds": (1e-2, 1e-4)}, {"bounds": (1e-3,)}, {"bounds": 5},
         {"start": 1e-46, "bounds": (1e-60, 1.0)}, {"share": "0.1"},
         {"share": None}],
    )  # fmt: skip
    def test_values_that_can_not_be_used_are_refused(self, given):
        with pytest.raises(CodeError, match="HeldShare"):
            HeldShare(**{"share": 0.1, **given})


def test_repr_says_weight():
    assert "weight=0.3" in repr(CodedSmoothing(mlp(), ["0"], weight=0.3))
    assert "weight=HeldShare(share=0.1, weight=0.001)" in repr(CodedSmoothing(mlp(), ["0"], weight=HeldShare(0.1)))
