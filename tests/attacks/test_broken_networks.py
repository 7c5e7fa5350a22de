"""Networks with logits of NaN, and labels of other integers: what attacks and scores make of them."""

import math

import pytest
import torch
from torch import nn

from cs_gan import RandomizedCodedInference
from cs_gan.attacks import (
    Budget,
    ResultRow,
    apgd,
    evaluate_defence,
    evaluate_threat,
    fgsm,
    pgd,
    run_sanity_checks,
    score_predictions,
    square,
    verdict,
)
from cs_gan.attacks.gradient import Objective
from cs_gan.errors import AttackError
from tests.attacks.networks import batch, mlp

DTYPES = [torch.int32, torch.int16, torch.int8, torch.uint8]


class BreaksAbove(nn.Module):
    """A network whose logits are NaN for images with a mean above a limit, without a NaN in their gradient below."""

    def __init__(self, limit, features=(1, 4, 4)):
        super().__init__()
        self.limit, self.body = limit, mlp(features=features)

    def forward(self, x):
        broken = x.flatten(1).mean(1, keepdim=True) > self.limit
        return torch.where(broken, math.nan, self.body(x))


def zeros(images):
    """Labels of class 0, which argmax gives for NaN."""
    return torch.zeros(len(images), dtype=torch.int64)


class TestNaN:
    def test_counts_as_fooled(self):
        images, _ = batch()
        network = BreaksAbove(-9.0)
        fooled, loss = Objective(network, zeros(images)).harm(images)
        assert fooled.tolist() == [1.0] * 8
        assert loss.isnan().all()

    def test_is_kept_as_the_worst_of_several_restarts(self):
        """A restart that breaks the network beats one that doesn't fool it."""
        images = torch.zeros(4, 1, 4, 4).double()
        network = BreaksAbove(0.0)
        network.body[3].bias.data[0] = 50  # class 0 for all images, so only NaN fools it
        labels = zeros(images)
        moved = pgd(network, images, labels, eps=0.3, steps=1, step=1e-9, restarts=16)
        # A random start is above 0 in half of the cases: with 16 restarts all 4 samples break but for 4 in 65,536.
        assert network(moved).isnan().any(1).all()

    def test_in_a_gradient_is_refused(self):
        images, labels = batch()
        with pytest.raises(AttackError, match="NaN"):
            fgsm(nn.Sequential(mlp(), Times(math.nan)), images, labels, eps=0.1)

    @pytest.mark.parametrize("norm", ["linf", "l2"])
    def test_in_the_gradient_of_apgd_is_refused(self, norm):
        """The logits are finite. APGD moves along the sign, which is 0 for NaN, and would find the network robust."""
        pytest.importorskip("pyautoattack")
        images, labels = batch()
        network = nn.Sequential(RootAtZero(), mlp())
        assert network(images).isfinite().all()
        for steps in (1, 5):
            with pytest.raises(AttackError, match="gradient of 8 of 8 samples is NaN"):
                apgd(network, images, labels, eps=0.1, norm=norm, steps=steps)

    def test_ends_a_search_of_square(self):
        pytest.importorskip("pyautoattack")
        images = torch.zeros(4, 1, 8, 8)
        network = BreaksAbove(0.0, (1, 8, 8)).float()
        network.body[3].bias.data[0] = 50
        moved = square(network, images, zeros(images), eps=0.3, queries=40)
        assert network(moved).isnan().any(1).all()
        assert moved.isfinite().all()

    @pytest.mark.parametrize("defended", [True, False])
    def test_network_has_accuracy_0_and_no_claim(self, defended):
        images, _ = batch()
        network = BreaksAbove(-9.0)
        broken = RandomizedCodedInference(network) if defended else network
        row = evaluate_threat("eot-1", broken, images, zeros(images), Budget(0.0), group_size=4, draws=3)
        assert (row.mean.value, row.worst.value, row.majority.value) == (0, 0, 0)
        assert row.without_class == 8 * 3
        check = run_sanity_checks([row])[-1]
        assert not check.passed
        assert "24 of 24 predictions" in check.evidence
        assert not verdict([check]).claim
        assert ResultRow.from_dict(row.as_dict()) == row

    def test_rows_written_before_the_count_are_still_read(self):
        images, labels = batch()
        row = evaluate_threat("eot-1", mlp(), images, labels, Budget(0.0), draws=2)
        old = row.as_dict()
        assert old.pop("without_class") == 0
        assert ResultRow.from_dict(old) == row
        assert run_sanity_checks([row])[-1].passed

    def test_network_in_a_report_of_a_defence(self):
        images, _ = batch()
        report = evaluate_defence(BreaksAbove(-9.0), images, zeros(images), group_size=4, draws=2)
        assert report.plain.value == report.defended.mean.value == report.defended.majority.value == 0


class RootAtZero(nn.Module):
    def forward(self, x):
        return x + (x - x).sqrt()  # the derivative of the root is infinite, times 1 - 1


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


class TestLabels:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
    def test_of_any_integer_dtype_attack_alike(self, dtype, loss):
        images, labels = batch()
        expected = pgd(mlp(), images, labels, eps=0.1, steps=2, restarts=2, loss=loss)
        assert torch.equal(pgd(mlp(), images, labels.to(dtype), eps=0.1, steps=2, restarts=2, loss=loss), expected)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("threat", ["eot-1", "oblivious", "hostile beside a clean target"])
    def test_of_any_integer_dtype_are_scored_alike(self, dtype, threat):
        images, labels = batch()
        rows = [
            evaluate_threat(
                threat,
                RandomizedCodedInference(mlp()),
                images,
                each,
                Budget(0.1, steps=2, eot=1),
                group_size=4,
                draws=2,
            )
            for each in (labels, labels.to(dtype))
        ]
        assert rows[0].mean == rows[1].mean
        reports = [evaluate_defence(mlp(), images, each, group_size=4, draws=2) for each in (labels, labels.to(dtype))]
        assert reports[0].plain == reports[1].plain

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_of_any_integer_dtype_are_attacked_by_autoattack(self, dtype):
        pytest.importorskip("pyautoattack")
        images, labels = batch(4, (1, 8, 8))
        network = mlp(features=(1, 8, 8)).float()
        for attack, options in ((apgd, {"steps": 3}), (square, {"queries": 5})):
            moved = [attack(network, images.float(), each, eps=0.1, **options) for each in (labels, labels.to(dtype))]
            assert torch.equal(*moved)


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (torch.zeros(0, 3).long(), torch.zeros(3).long(), r"\(0, 3\)"),
        (torch.zeros(2, 3).long(), torch.zeros(4).long(), r"\(4,\)"),
        (torch.zeros(3).long(), torch.zeros(3).long(), r"\(3,\)"),
        (torch.full((2, 3), -1), torch.full((3,), -1), "smallest label is -1"),
    ],
)
def test_predictions_that_are_no_score_are_refused(predictions, labels, message):
    with pytest.raises(AttackError, match=message):
        score_predictions(predictions, labels)
