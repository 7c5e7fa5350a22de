import pytest
import torch
from torch import nn

from cs_gan import RandomizedCodedInference
from cs_gan.attacks import Budget, evaluate_defence, evaluate_threat
from cs_gan.errors import AttackError, BatchError, CodeError
from tests.attacks.networks import batch, mlp


def test_plain_and_defended_stand_side_by_side(digits):
    network, images, labels = digits
    report = evaluate_defence(network, images, labels, ratio=2.0, group_size=10, draws=5)
    assert report.plain.value == (network(images).argmax(1) == labels).double().mean().item()
    assert report.defended.n == 40
    assert report.defended.draws == 5
    assert report.defended.worst.value <= report.defended.mean.value <= report.plain.value + 0.05
    assert (report.ratio, report.votes, report.group_size) == (2.0, 1, 10)


def test_a_zero_forcing_linear_network_answers_as_the_plain_one():
    images, labels = batch(12, (6,))
    report = evaluate_defence(nn.Linear(6, 5).double(), images, labels, decoder_kind="zero-forcing", group_size=4)
    assert report.defended.mean == report.defended.worst == report.plain


@pytest.mark.parametrize(
    ("ratio", "votes", "group_size", "bank", "passes"),
    [
        (1.5, 1, 4, None, 1.5),
        (2.0, 3, 4, None, 6.0),
        (1.0, 1, 1, 3, 4.0),  # one image served beside three of the bank
        (1.0, 1, 6, 5, 12 / 8),  # groups of 6 and 2, the second filled up to 6
    ],
)
def test_the_cost_is_counted(ratio, votes, group_size, bank, passes):
    images, labels = batch(8)
    report = evaluate_defence(
        mlp(), images, labels, ratio=ratio, votes=votes, group_size=group_size, draws=3,
        reference=None if bank is None else batch(bank, seed=1)[0],
    )  # fmt: skip
    assert report.passes_per_image == pytest.approx(passes)
    assert report.slowdown == pytest.approx(report.defended_seconds / report.plain_seconds)
    assert report.plain_seconds > 0


def test_blocks_called_by_keyword_are_counted():
    class ByKeyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = mlp()

        def forward(self, x):
            return self.head(input=x)

    assert evaluate_defence(ByKeyword(), *batch(8), blocks=["head"], group_size=4).passes_per_image == 1.5


def test_coded_blocks_inside_are_what_is_counted():
    images, labels = batch(8)
    assert evaluate_defence(mlp(), images, labels, blocks=["1", "3"], group_size=4).passes_per_image == 1.5


def test_the_network_is_given_back_as_it_was():
    images, labels = batch(8)
    network = mlp().train()
    state = torch.get_rng_state()
    first, second = (evaluate_defence(network, images, labels, group_size=4) for _ in range(2))  # attachable again
    assert first.defended == second.defended
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not network._forward_pre_hooks
    with pytest.raises(BatchError):
        evaluate_defence(network, *batch(1))
    RandomizedCodedInference(network)  # detached after an error too


def test_it_meets_the_permutations_of_an_attack_with_eps_zero():
    images, labels = batch(10)
    network = mlp()
    report = evaluate_defence(network, images, labels, group_size=5, draws=4)
    row = evaluate_threat(
        "eot-1", RandomizedCodedInference(network), images, labels, Budget(0.0), group_size=5, draws=4
    )
    assert report.defended.mean == row.mean
    assert report.defended.majority == row.majority


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ratio": 0.0}, CodeError, "above 0"),
        ({"ratio": 0.1, "group_size": 4}, CodeError, "raise the ratio"),
        ({"votes": 0}, CodeError, "votes=0"),
        ({"reference": torch.zeros(3, 1, 5, 5)}, BatchError, r"\(1, 5, 5\).*\(1, 4, 4\)"),
        ({"reference": torch.zeros(0, 1, 4, 4)}, CodeError, "empty"),
        ({"group_size": 0}, AttackError, "group_size=0"),
        ({"group_size": 7}, BatchError, "group of one"),
    ],
)
def test_options_that_can_not_be_used_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        evaluate_defence(mlp(), *batch(8), **options)


def test_labels_and_outputs_that_do_not_fit_are_refused():
    images, labels = batch(8)
    with pytest.raises(AttackError, match="classes"):
        evaluate_defence(mlp(), images, labels + 4, group_size=4)
    with pytest.raises(AttackError, match="classes"):
        evaluate_defence(nn.Identity(), images, labels)
