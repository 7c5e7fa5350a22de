import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from cs_gan import RandomizedCodedInference
from cs_gan.attacks import fixed, fresh, plain, score_predictions, wilson
from cs_gan.attacks.scoring import groups
from cs_gan.errors import AttackError, BatchError
from tests.attacks.networks import batch, mlp


class TestWilson:
    @pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (487, 1000), (1, 1)])
    def test_the_interval_equals_scipys(self, k, n):
        expected = stats.binomtest(k, n).proportion_ci(method="wilson")
        assert wilson(k / n, n)[1:] == pytest.approx(tuple(expected), abs=1e-12)

    def test_it_holds_its_value_and_stays_in_range(self):
        for n in (1, 7, 1000):
            for value in np.linspace(0, 1, 14):
                interval = wilson(value, n)
                assert 0 <= interval.low <= interval.value <= interval.high <= 1

    def test_no_samples_are_refused(self):
        with pytest.raises(AttackError):
            wilson(0.5, 0)


class TestScorePredictions:
    def test_mean_worst_and_majority_by_hand(self):
        labels = torch.tensor([0, 0, 0, 0, 0])
        predictions = torch.tensor(
            [[0, 0, 1, 1, 0], [0, 0, 1, 2, 1], [0, 1, 0, 0, 0], [0, 2, 1, 0, 1]]
        )  # right in 4, 2, 1, 2 and 2 of 4 draws
        score = score_predictions(predictions, labels)
        assert score.mean.value == pytest.approx(11 / 20)
        assert score.worst.value == pytest.approx(1 / 5)
        # the second and fourth have two draws against one each, the fifth ties two against two
        assert score.majority.value == pytest.approx(3 / 5)
        assert (score.n, score.draws) == (5, 4)

    def test_one_draw_gives_three_times_the_same(self):
        score = score_predictions(torch.tensor([[0, 1, 2]]), torch.tensor([0, 1, 1]))
        assert score.mean == score.worst == score.majority


class TestViews:
    def test_fixed_repeats_fresh_does_not_and_neither_moves_the_defence(self):
        network, (images, _) = mlp(), batch()
        defence = RandomizedCodedInference(network, votes=2)
        state = defence.generator.get_state()
        same, new = fixed(defence, 5), fresh(defence, torch.Generator().manual_seed(5))
        first = same(images)
        assert torch.equal(same(images), first)
        assert torch.equal(new(images), first)
        assert not torch.equal(new(images), first)
        assert torch.equal(plain(defence)(images), network(images))
        assert torch.equal(defence.generator.get_state(), state)

    def test_random_nodes_are_fixed_with_the_permutation(self):
        images, _ = batch()
        defence = RandomizedCodedInference(mlp(), nodes="random")
        assert torch.equal(fixed(defence, 5)(images), fixed(defence, 5)(images))
        assert not torch.equal(fixed(defence, 5)(images), fixed(defence, 6)(images))

    def test_a_plain_network_is_its_own(self):
        network, (images, _) = mlp(), batch()
        assert plain(network) is network
        assert torch.equal(fixed(network, 5)(images), network(images))


class TestGroups:
    def test_the_last_group_may_be_short(self):
        images, labels = batch(10)
        assert [(part.start, part.stop) for part in groups(mlp(), images, labels, 4)] == [(0, 4), (4, 8), (8, 10)]

    @pytest.mark.parametrize(("count", "size"), [(9, 4), (1, 4), (3, 1)])
    def test_a_group_of_one_needs_a_bank(self, count, size):
        images, labels = batch(count)
        with pytest.raises(BatchError, match="reference"):
            groups(RandomizedCodedInference(mlp()), images, labels, size)
        groups(RandomizedCodedInference(mlp(), reference=images), images, labels, size)

    @pytest.mark.parametrize(
        ("labels", "warned"), [([0, 0, 1, 1, 2, 2], True), ([0, 1, 0, 2, 1, 2], False), ([3] * 6, False)]
    )
    def test_labels_that_are_sorted_are_warned_of(self, labels, warned):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            groups(RandomizedCodedInference(mlp()), torch.randn(6, 3), torch.tensor(labels), 2)
        assert any("the labels are sorted" in str(each.message) for each in caught) == warned
