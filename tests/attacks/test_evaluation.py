import pytest
from torch import nn

from cs_gan import RandomizedCodedInference
from cs_gan.attacks import Budget, evaluate_threat, exercise_batch_sizes
from cs_gan.errors import AttackError
from tests.attacks.networks import batch, mlp

BUDGET = Budget(0.1, steps=2, eot=2, queries=3)


class TestRows:
    def test_forward_passes_are_those_of_the_attack(self):
        images, labels = batch(8)
        defence = RandomizedCodedInference(mlp(), votes=2)
        row = evaluate_threat("eot-5", defence, images, labels, Budget(0.1, steps=3), group_size=4, draws=2)
        assert row.forward_passes == 2 * 3 * 5 * 2  # groups, steps, draws, votes
        assert (row.attack, row.steps, row.restarts, row.eot) == ("pgd", 3, 1, 5)
        assert row.seconds > 0

    @pytest.mark.parametrize(
        ("threat", "attack", "told"),
        [
            ("eot-5", "fgsm", ("fgsm", "margin", 1, 1, 5)),
            ("jointly perturbed", "pgd", ("pgd", "margin", 4, 2, 3)),
            ("oblivious", "pgd", ("pgd", "margin", 4, 2, 1)),
            ("square", "pgd", ("square", "margin", 6, 2, 1)),
            ("eot-1", "rand", ("rand", "cross-entropy, dlr", 4, 1, 20)),
            ("eot-5", "apgd-ce", ("apgd-ce", "cross-entropy", 4, 2, 5)),
        ],
    )
    def test_rows_tell_what_was_done(self, threat, attack, told):
        pytest.importorskip("pyautoattack")
        images, labels = batch(4, (1, 8, 8))
        defence = RandomizedCodedInference(mlp(features=(1, 8, 8)).float())
        budget = Budget(0.1, attack=attack, steps=4, restarts=2, eot=3, queries=6)
        row = evaluate_threat(threat, defence, images.float(), labels, budget, draws=2)
        assert (row.attack, row.loss, row.steps, row.restarts, row.eot) == told

    def test_as_dict_is_flat(self):
        row = evaluate_threat("eot-1", RandomizedCodedInference(mlp()), *batch(4), BUDGET, draws=2).as_dict()
        assert row["mean_low"] <= row["mean"] <= row["mean_high"]
        assert not any(isinstance(value, dict) for value in row.values())

    def test_targets_are_spread_over_the_set(self):
        images, labels = batch(9)
        row = evaluate_threat(
            "hostile beside a clean target", RandomizedCodedInference(mlp()), images, labels, BUDGET,
            group_size=3, draws=2, targets=4,
        )  # fmt: skip
        assert row.n == 4

    def test_batch_sizes_2_K_and_a_short_one_are_exercised_and_1_only_with_a_bank(self):
        images, labels = batch(12)
        with_bank = exercise_batch_sizes(
            RandomizedCodedInference(mlp(), reference=images[:7]), images, labels, BUDGET, group_size=8
        )
        assert [row.batch_sizes for row in with_bank] == [(1,), (2,), (8, 4)]
        without = exercise_batch_sizes(RandomizedCodedInference(mlp()), images, labels, BUDGET, group_size=8)
        assert [row.batch_sizes for row in without] == [(2,), (8, 4)]


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"eps": -1.0}, "eps=-1.0"),
            ({"norm": "l0"}, "linf, l2"),
            ({"attack": "deepfool"}, "fgsm, pgd"),
            ({"steps": 0}, "steps=0"),
            ({"loss": "hinge"}, "margin"),
        ],
    )
    def test_a_budget_that_can_not_be_used_is_refused(self, options, message):
        with pytest.raises(AttackError, match=message):
            Budget(**{"eps": 0.1} | options)

    def test_labels_out_of_range_fail_before_any_attack(self):
        images, labels = batch(8)
        labels[-1] = 5
        defence, calls = RandomizedCodedInference(mlp()), []
        defence.model.register_forward_hook(lambda *_: calls.append(1))
        with pytest.raises(AttackError, match="5 classes"):
            evaluate_threat("eot-1", defence, images, labels, BUDGET, group_size=4)
        assert len(calls) == 1

    def test_a_network_without_classes_is_refused(self):
        images, labels = batch(8)
        with pytest.raises(AttackError, match="classes"):
            evaluate_threat("eot-1", RandomizedCodedInference(nn.Identity()), images, labels, BUDGET, group_size=4)

    def test_transfer_without_another_network_is_refused(self):
        with pytest.raises(AttackError, match="surrogate"):
            evaluate_threat("transfer", RandomizedCodedInference(mlp()), *batch(), BUDGET)

    def test_no_draws_are_refused(self):
        with pytest.raises(AttackError, match="draws=0"):
            evaluate_threat("eot-1", RandomizedCodedInference(mlp()), *batch(), BUDGET, draws=0)

    def test_too_few_images_for_every_batch_size_are_refused(self):
        with pytest.raises(AttackError, match="K >= 3"):
            exercise_batch_sizes(RandomizedCodedInference(mlp()), *batch(3), BUDGET)
