import copy

import pytest
import torch
from torch import nn

from cs_gan import RandomizedCodedInference
from cs_gan.attacks import THREATS, Budget, evaluate_threat, find_threat
from cs_gan.attacks.attacked_batch import AttackedBatch
from cs_gan.attacks.scoring import fixed
from cs_gan.errors import AttackError
from tests.attacks.networks import Recorder, batch, mlp

NAMES = [
    "oblivious", "wrong_permutation", "true_permutation", "eot-1", "eot-5", "eot-20", "eot-50", "square", "transfer",
    "neighbours clean and fixed", "neighbours clean and fresh", "jointly perturbed", "hostile beside a clean target",
]  # fmt: skip
ONE_TARGET = NAMES[-4:-2] + NAMES[-1:]
BUDGET = Budget(0.1, steps=2, eot=2, queries=3)


def evaluate(threat, defence, images, labels, budget=BUDGET, **options):
    if threat == "square":
        pytest.importorskip("pyautoattack")
        images, defence = images.float(), defence.float()
    return evaluate_threat(
        threat,
        defence,
        images,
        labels,
        budget,
        **{"group_size": 4, "draws": 3, "surrogate": mlp(7).to(images)} | options,
    )


def attacked_batch(defence, images, labels, draws=4, budget=BUDGET, **options):
    return AttackedBatch(
        defence, images, labels, images, 0, list(range(len(images))), budget, (0, "group", 0), draws, **options
    )


class TestRegistry:
    def test_all_threats_are_there_in_order_and_say_what_they_know(self):
        assert list(THREATS) == NAMES
        assert all(threat.name == name and threat.knows for name, threat in THREATS.items())

    @pytest.mark.parametrize("name", ["true-permutation", "True permutation", "jointly_perturbed", "EOT_5"])
    def test_case_spaces_hyphens_and_underscores_in_a_name_do_not_matter(self, name):
        assert find_threat(name).name in NAMES

    def test_eot_can_average_over_any_n(self):
        assert find_threat("eot-7").eot == 7

    @pytest.mark.parametrize("name", ["eot-0", "eot", "psychic", ""])
    def test_unknown_names_list_the_known(self, name):
        with pytest.raises(AttackError, match="oblivious"):
            find_threat(name)


@pytest.mark.parametrize("name", NAMES)
class TestEveryThreat:
    @pytest.mark.parametrize("count", [1, 2, 5, 9])
    def test_groups_of_every_size_run(self, name, count):
        images, labels = batch(count)
        bank = batch(3, seed=1)[0]
        defence = RandomizedCodedInference(mlp(), reference=bank.float() if name == "square" else bank)
        if name == "neighbours clean and fresh" and count == 2:
            with pytest.raises(AttackError, match="Fresh neighbours"):
                evaluate(name, defence, images, labels)
            return
        row = evaluate(name, defence, images, labels, targets=count)
        assert row.threat == name
        assert row.n == count
        assert row.batch_sizes == {1: (1,), 2: (2,), 5: (4, 1), 9: (4, 1)}[count]
        assert row.draws == (1 if name == "true_permutation" else 3)
        assert row.worst.value <= row.mean.value
        assert row.forward_passes > 0 or (name.startswith("hostile") and count == 1)

    def test_nothing_is_left_changed_and_everything_repeats(self, name):
        images, labels = batch()
        defence = RandomizedCodedInference(mlp().train(), seed=5)
        surrogate = mlp(7).train().to(torch.float32 if name == "square" else torch.float64)
        state, own = torch.get_rng_state(), defence.generator.get_state()
        rows = [evaluate(name, defence, images, labels, surrogate=surrogate).as_dict() for _ in range(2)]
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(defence.generator.get_state(), own)
        assert all(module.training for network in (defence.model, surrogate) for module in network.modules())
        assert all(p.grad is None for network in (defence, surrogate) for p in network.parameters())
        assert not defence.model._forward_pre_hooks
        for row in rows:
            row.pop("seconds")
        assert rows[0] == rows[1]

    def test_eps_zero_is_the_clean_accuracy(self, name):
        images, labels = batch(8)
        defence = RandomizedCodedInference(mlp(), reference=images)
        options = {"group_size": 4, "draws": 1, "targets": 8}
        row = evaluate(name, defence, images, labels, Budget(0.0), **options)
        assert row.n == 8
        if name not in ONE_TARGET:  # which are scored under permutations of their own
            clean = evaluate("oblivious", defence.double(), images, labels, Budget(0.0), **options)
            assert row.mean == clean.mean

    def test_adversarial_inputs_stay_in_the_ball(self, name):
        images, labels = batch(4)
        pool, _ = batch(9)
        defence, surrogate = RandomizedCodedInference(mlp()), mlp(7)
        if name == "square":
            pytest.importorskip("pyautoattack")
            images, pool, defence = images.float(), pool.float(), defence.float()
        assert torch.equal(pool[:4], images)
        trials = find_threat(name).attack(
            AttackedBatch(defence, images, labels, pool, 0, [0, 2], BUDGET, (0,), 3, surrogate)
        )
        assert [trial.counted for trial in trials] == ([[0], [2]] if name in ONE_TARGET else [[0, 1, 2, 3]])
        for trial in trials:
            for draw in range(len(trial.seeds)):
                given = trial.batch(draw)
                assert given.shape == images.shape
                assert given.abs().max() <= 1
                moved = (given - images).flatten(1).abs().amax(1)
                counted, others = trial.counted[0], [k for k in range(4) if k not in trial.counted]
                if name == "hostile beside a clean target":
                    assert moved[counted] == 0
                    assert 0 < moved.max() <= 0.1 + 1e-6
                else:
                    assert 0 < moved[counted] <= 0.1 + 1e-6
                    if name == "neighbours clean and fixed":
                        assert moved[others].max() == 0
                    elif name == "neighbours clean and fresh":
                        near = torch.cdist(given[others].flatten(1), pool.flatten(1))
                        assert near.amin(1).max() == 0
                        assert counted not in near.argmin(1)  # the target is not its own neighbour
                    else:
                        assert moved.max() <= 0.1 + 1e-6


class TestPermutations:
    """That attackers and scoring meet the permutations that the threat's name says, by recording them."""

    def split(self, monkeypatch, name, count=5, draws=4, **options):
        images, labels = batch(count)
        defence = RandomizedCodedInference(mlp())
        recorder = Recorder(monkeypatch)
        trial = find_threat(name).attack(attacked_batch(defence, images, labels, draws))[0]
        attack = recorder.take()
        for draw, seed in enumerate(trial.seeds):
            fixed(defence, seed)(trial.batch(draw))
        return attack, recorder.take()

    def test_the_oblivious_attacker_draws_no_permutation(self, monkeypatch):
        attack, scoring = self.split(monkeypatch, "oblivious")
        assert attack == []
        assert len(set(scoring)) == 4

    def test_wrong_permutation_uses_one_that_scoring_does_not(self, monkeypatch):
        # 3! = 6 permutations, 4 of them scored on: chance alone would collide more often than not
        for count in (3, 5):
            attack, scoring = self.split(monkeypatch, "wrong_permutation", count)
            used = {order for order in attack[-2:]}  # those before chose it
            assert len(used) == 1
            assert not used & set(scoring)

    def test_true_permutation_uses_the_very_one_and_is_scored_on_it(self, monkeypatch):
        attack, scoring = self.split(monkeypatch, "true_permutation")
        assert len(attack) == 2  # steps
        assert set(attack) == set(scoring)
        assert len(scoring) == 1

    @pytest.mark.parametrize("n", [1, 5])
    def test_eot_draws_n_fresh_ones_per_step(self, monkeypatch, n):
        attack, scoring = self.split(monkeypatch, f"eot-{n}", count=9)
        assert len(attack) == 2 * n
        assert len(set(attack)) == len(attack)  # 9! of them
        assert not set(attack) & set(scoring)

    def test_scoring_is_the_same_for_every_threat(self, monkeypatch):
        scored = {tuple(self.split(monkeypatch, name)[1]) for name in ("oblivious", "wrong_permutation", "eot-5")}
        assert len(scored) == 1

    def test_fresh_neighbours_change_with_every_draw(self):
        pool, labels = batch(12)
        defence = RandomizedCodedInference(mlp())
        trial = find_threat("neighbours clean and fresh").attack(
            AttackedBatch(defence, pool[3:7], labels[3:7], pool, 3, [1], BUDGET, (0,), 5)
        )[0]
        batches = [trial.batch(draw) for draw in range(5)]
        assert torch.equal(batches[0], trial.batch(0))
        assert all(torch.equal(given[1], batches[0][1]) for given in batches)
        others = {
            tuple(torch.cdist(given[[0, 2, 3]].flatten(1), pool.flatten(1)).argmin(1).tolist()) for given in batches
        }
        assert len(others) == 5
        assert all(4 not in each and len(set(each)) == 3 for each in others)


class TestStrength:
    def test_knowing_the_permutation_gains_most_on_a_linear_defence(self):
        """Logits W x under RCI are linear in the batch, so PGD on the summed margin reaches its maximum over the
        box of all samples: no attacker who knows less can have a larger one under that permutation."""
        images, labels = batch(12, (16,), classes=2)
        defence = RandomizedCodedInference(nn.Linear(16, 2).double(), ratio=0.5)  # half a code mixes more
        budget = Budget(0.1, loss="margin", steps=10, low=-9, high=9)
        here = attacked_batch(defence, images, labels, budget=budget)
        gains = {}
        for name in ("oblivious", "wrong_permutation", "true_permutation", "eot-5"):
            adversarial = find_threat(name).attack(here)[0].batch(0)
            logits = fixed(defence, here.seeds()[0])(adversarial)
            gains[name] = (logits[range(12), 1 - labels] - logits[range(12), labels]).sum().item()
        assert gains["true_permutation"] > max(gains[name] for name in gains if name != "true_permutation") + 0.01

    def test_oblivious_on_a_plain_network_is_pgd(self, digits):
        network, images, labels = digits
        row = evaluate_threat("oblivious", network, images, labels, Budget(0.4, steps=10), group_size=20, draws=1)
        assert row.mean.value < 0.2
        assert row.mean == row.worst == row.majority

    def test_a_transfer_from_the_network_itself_is_the_oblivious_attack(self, digits):
        network, images, labels = digits
        defence = RandomizedCodedInference(network)
        budget = Budget(0.3, attack="fgsm")  # without a random start
        try:
            options = {"group_size": 20, "draws": 4}
            here = evaluate_threat("oblivious", defence, images, labels, budget, **options)
            there = evaluate_threat(
                "transfer", defence, images, labels, budget, surrogate=copy.deepcopy(network), **options
            )
        finally:
            defence.coded.detach()
        assert here.mean == there.mean
