import pytest
import torch
from torch import nn

from cs_gan.attacks import fgsm, pgd
from cs_gan.attacks.gradient import Objective, margin, worst_of
from cs_gan.errors import AttackError
from tests.attacks.networks import batch, generator


class TestLossesThroughAMixingForward:
    def test_cross_entropy_spends_a_confident_sample_on_its_neighbour_and_the_margin_does_not(self):
        """Each sample gets a tenth of the other; the first is classified with confidence, the second wrongly.

        Moving the first one up harms itself, and helps the second: cross-entropy sees the second alone.
        """
        mixing = torch.tensor([[1.0, 0.1], [0.1, 1.0]])
        forward = lambda x: (mixing @ x) * torch.tensor([[-1.0, 1.0]]) * 30
        images, labels = torch.tensor([[-1.0], [-1.0]]), torch.tensor([0, 1])
        before = margin(forward(images), labels)
        assert before[0] < 0 < before[1]
        gains = {}
        for loss in ("cross-entropy", "margin"):
            moved = pgd(forward, images, labels, eps=0.5, steps=10, loss=loss, random_start=False, low=-9, high=9)
            gains[loss] = (margin(forward(moved), labels) - before)[0].item()
        assert gains["cross-entropy"] < 0 < gains["margin"]


class TestRestarts:
    @pytest.mark.parametrize("norm", ["linf", "l2"])
    def test_more_restarts_are_never_worse(self, network, norm):
        """The first restarts of a longer attack are those of the shorter one."""
        images, labels = batch(20)
        harms = []
        for restarts in (1, 2, 5):
            adversarial = pgd(
                network, images, labels, eps=0.3, step=0.2, steps=1, restarts=restarts, norm=norm, generator=generator()
            )
            logits = network(adversarial)
            loss = nn.functional.cross_entropy(logits, labels, reduction="none")
            harms.append((logits.argmax(1) != labels).double() * 1e3 + loss)
        assert (harms[1] >= harms[0] - 1e-9).all()
        assert (harms[2] >= harms[1] - 1e-9).all()
        assert (harms[2] > harms[0]).any()

    def test_each_sample_keeps_its_worst(self):
        labels = torch.zeros(3, dtype=torch.long)
        forward = lambda x: torch.cat([x, torch.zeros_like(x)], 1)
        runs = [torch.tensor([[1.0], [-2.0], [0.5]]), torch.tensor([[-1.0], [-1.0], [0.2]])]
        assert worst_of(Objective(forward, labels), runs).flatten().tolist() == [-1.0, -2.0, pytest.approx(0.2)]

    def test_misclassified_counts_before_loss(self):
        labels = torch.zeros(1, dtype=torch.long)
        # log p of class 0 is lower in the first run, but only the second is misclassified
        table = {0.0: [1.0, 0.9, 0.9], 1.0: [1.0, 1.1, -9.0]}
        forward = lambda x: torch.tensor([table[x.item()]])
        objective = Objective(forward, labels)
        runs = [torch.tensor([[0.0]]), torch.tensor([[1.0]])]
        assert objective.harm(runs[0])[1] > objective.harm(runs[1])[1]
        assert worst_of(objective, runs).item() == 1.0

    def test_a_mixture_that_harms_a_mixing_batch_less_than_one_run_is_not_kept(self):
        labels = torch.zeros(2, dtype=torch.long)

        def forward(x):  # both samples are misclassified only if they come from the same run
            together = (x[0] == x[1]).float()
            own = torch.tensor([[0.4], [0.6]]) if x[0] > 0 else torch.tensor([[0.6], [0.4]])
            return torch.cat([torch.zeros(2, 1), together * own - (1 - together)], 1)

        runs = [torch.zeros(2, 1), torch.ones(2, 1)]
        assert torch.equal(worst_of(Objective(forward, labels), runs), runs[0])


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"eps": -0.1}, "eps=-0.1"),
            ({"eps": float("nan")}, "eps=nan"),
            ({"norm": "l1"}, "linf, l2"),
            ({"steps": 0}, "steps=0"),
            ({"step": 0.0}, r"step=0\.0"),
            ({"restarts": 0}, "restarts=0"),
            ({"restarts": 2, "random_start": False}, "random_start"),
            ({"eot": 0}, "eot=0"),
            ({"loss": "hinge"}, "cross-entropy, margin"),
            ({"low": 1.0, "high": 0.0}, "empty"),
            ({"low": 0.0}, "outside"),
        ],
    )
    def test_a_budget_that_can_not_be_used_is_refused(self, network, options, message):
        images, labels = batch()
        with pytest.raises(AttackError, match=message):
            pgd(network, images, labels, **{"eps": 0.1} | options)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda x, y: (x, y + 5), "classes"),
            (lambda x, y: (x, y - 9), "count from 0"),
            (lambda x, y: (x, y[:-1]), r"\(7,\)"),
            (lambda x, y: (x, y.float()), "float32"),
            (lambda x, y: (x.long(), y), "int64"),
            (lambda x, y: (x[:0], y[:0]), "floating-point"),
            (lambda x, y: (x * float("nan"), y), "nan"),
        ],
    )
    def test_a_batch_that_can_not_be_attacked_is_refused(self, network, change, message):
        images, labels = change(*batch())
        with pytest.raises(AttackError, match=message):
            pgd(network, images, labels, eps=0.1)

    @pytest.mark.parametrize(
        ("forward", "message"),
        [
            (lambda x: x, r"\(8, 1, 4, 4\).*\(8, classes\)"),
            (lambda x: x.flatten(1)[:, :1], "two classes"),
            (lambda x: x.flatten(1)[:4], r"\(4, 16\)"),
            (lambda x: (x.flatten(1),), "tuple"),
            (lambda x: x.detach().flatten(1), "depend"),
            (lambda x: torch.zeros(8, 5, requires_grad=True), "depend"),
        ],
    )
    def test_a_network_without_differentiable_logits_is_refused(self, forward, message):
        images, labels = batch()
        with pytest.raises(AttackError, match=message):
            pgd(forward, images, labels, eps=0.1)

    def test_nan_gradients_name_their_samples(self, network):
        images, labels = batch()
        images[[2, 5]] = 0.0

        def forward(x):  # the root's derivative at 0 is infinite, times 0 gives NaN
            return network(x) + 0 * x.flatten(1).square().sum(1, keepdim=True).sqrt()

        with pytest.raises(AttackError, match=r"2 of 8 samples.*\[2, 5\]"):
            fgsm(forward, images, labels, eps=0.1)

    def test_a_generator_elsewhere_than_on_the_cpu_is_refused(self, network):
        images, labels = batch()
        with pytest.raises(AttackError, match="CPU"):
            pgd(network, images, labels, eps=0.1, generator=type("G", (), {"device": torch.device("cuda")})())
