import sys

import pytest
import torch
from torch import nn

from cs_gan import RandomizedCodedInference
from cs_gan.attacks import apgd, autoattack, fresh, rand, square
from cs_gan.errors import AttackError
from tests.attacks.networks import batch, generator, mlp

ATTACKS = {
    "apgd-ce": lambda *args, **options: apgd(*args, steps=5, **options),
    "apgd-dlr": lambda *args, **options: apgd(*args, steps=5, loss="dlr", **options),
    "square": lambda *args, **options: square(*args, queries=10, **options),
    "rand": lambda *args, **options: rand(*args, steps=2, **options),
}


def batch32(count=8, features=(1, 8, 8)):
    images, labels = batch(count, features)
    return images.float(), labels


@pytest.fixture
def network():
    return mlp(features=(1, 8, 8)).float()


@pytest.fixture(autouse=True)
def _installed():
    pytest.importorskip("pyautoattack")


@pytest.mark.parametrize("name", ATTACKS)
class TestWholeBatches:
    @pytest.mark.parametrize("count", [1, 2, 7])
    @pytest.mark.parametrize("norm", ["linf", "l2"])
    def test_every_forward_sees_the_whole_batch_in_order(self, network, name, count, norm):
        """Most samples are misclassified from the start: AutoAttack alone would drop them."""
        images, labels = batch32(count)
        seen = []

        def forward(x):
            seen.append(x.detach().clone())
            return network(x)

        adversarial = ATTACKS[name](forward, images, labels, eps=0.05, norm=norm, generator=generator())
        delta = (adversarial - images).flatten(1)
        radius = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert radius.max() <= 0.05 * (1 + 1e-5)
        assert adversarial.abs().max() <= 1
        assert adversarial.shape == images.shape
        assert adversarial.dtype == images.dtype
        assert len(seen) > 4
        for x in seen:  # images are farther apart than 2 eps, so each is at its own place
            distance = torch.cdist(x.flatten(1), images.flatten(1))
            assert torch.equal(distance.argmin(1), torch.arange(count))

    @pytest.mark.parametrize("norm", ["linf", "l2"])
    def test_images_in_channels_last_are_attacked(self, name, norm):
        images, labels = batch32(4, (3, 8, 8))
        convolutional = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 5))
        convolutional.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
        adversarial = ATTACKS[name](convolutional, images, labels, eps=0.05, norm=norm, generator=generator())
        assert not torch.equal(adversarial, images)

    def test_random_states_modes_and_gradients_are_as_before(self, network, name):
        images, labels = batch32()
        defence = RandomizedCodedInference(network.train(), seed=3)
        state, own = torch.get_rng_state(), defence.generator.get_state()
        ATTACKS[name](defence, images, labels, eps=0.05, generator=generator(1))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(defence.generator.get_state(), own)
        assert network.training
        assert all(parameter.grad is None for parameter in network.parameters())

    def test_the_generator_decides_every_draw(self, network, name):
        images, labels = batch32()
        defence = RandomizedCodedInference(network.train(), seed=3)
        results = [ATTACKS[name](defence, images, labels, eps=0.05, generator=generator(seed)) for seed in (1, 1, 2)]
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])

    def test_eps_zero_gives_the_images(self, network, name):
        images, labels = batch32()
        assert torch.equal(ATTACKS[name](network, images, labels, eps=0.0), images)

    def test_images_of_another_range_and_precision_keep_both(self, network, name):
        images, labels = batch32()
        images = (images.double() + 1) * 127.5
        forward = lambda x: network((x / 127.5 - 1).float())
        adversarial = ATTACKS[name](forward, images, labels, eps=8.0, low=0.0, high=255.0)
        assert adversarial.dtype == torch.float64
        assert (adversarial - images).abs().max() <= 8 + 1e-9
        assert (adversarial - images).abs().max() > 7

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"eps": -1.0}, "eps=-1.0"), ({"eps": 0.1, "high": torch.inf}, "finite"), ({"eps": 0.1, "low": 0}, "outside")],
    )
    def test_a_budget_that_can_not_be_used_is_refused(self, network, name, options, message):
        images, labels = batch32()
        with pytest.raises(AttackError, match=message):
            ATTACKS[name](network, images, labels, **options)

    def test_labels_beyond_the_classes_are_refused(self, network, name):
        images, labels = batch32()
        with pytest.raises(AttackError, match="classes"):
            ATTACKS[name](network, images, labels + 5, eps=0.1)


class TestAgainstPyautoattack:
    def test_apgd_on_a_plain_network_is_pyautoattacks_own(self, network):
        """Where no sample is misclassified at first, its `perturb` attacks the same batch with the same draws."""
        from pyautoattack.autopgd_base import APGDAttack

        images, _ = batch32()
        labels = network(images).argmax(1)
        seed = int(torch.randint(2**62, (), generator=generator(5)))
        theirs = APGDAttack(
            lambda x: network(2 * x - 1), n_iter=10, eps=0.1 / 2, seed=seed, device=torch.device("cpu")
        ).perturb((images + 1) / 2, labels)
        ours = apgd(network, images, labels, eps=0.1, steps=10, generator=generator(5))
        fooled = network(2 * theirs - 1).argmax(1) != labels
        assert fooled.any()  # those keep their last misclassified point, or a worse one
        assert ((network(ours).argmax(1) != labels) >= fooled).all()
        loss = lambda x: nn.functional.cross_entropy(network(x), labels, reduction="none")
        assert (loss(ours) >= loss(2 * theirs - 1) - 1e-5).all()

    def test_rand_equals_pyautoattacks_version_rand(self, network):
        from pyautoattack import AutoAttack

        theirs = AutoAttack(network, version="rand")
        assert [f"apgd-{loss}" for loss in autoattack.RAND_LOSSES] == theirs.attacks_to_run
        assert theirs.apgd.eot_iter == autoattack.RAND_EOT
        assert theirs.apgd.n_restarts == 1
        assert theirs.apgd.n_iter == 100  # the default of rand(steps=...)

    def test_a_version_that_drops_samples_elsewhere_is_noticed(self, network):
        images, labels = batch32()
        pinned = autoattack._Pinned(network, autoattack.Ball("linf", 0.1), images, labels)
        with pytest.raises(AttackError, match="drops samples"):
            pinned(pinned.unit()[:3])


class TestStrength:
    def test_apgd_and_square_break_a_digits_network(self, digits):
        network, images, labels = digits
        images, labels = images[:16], labels[:16]
        accuracy = lambda x: (network(x).argmax(1) == labels).float().mean().item()
        assert accuracy(images) > 0.85
        assert accuracy(apgd(network, images, labels, eps=0.5, steps=20)) == 0
        assert accuracy(square(network, images, labels, eps=0.5, queries=100)) < 0.5

    @pytest.mark.parametrize("eot", [1, 4])
    def test_square_averages_draws_goes_on_once_it_fools_and_asks_for_no_gradient(self, network, eot):
        images, labels = batch32()
        asked, defended = [], fresh(RandomizedCodedInference(network), generator())

        def forward(x):
            logits = network(x) if eot == 1 else defended(x)
            asked.append(logits.requires_grad)
            return logits

        square(forward, images, labels, eps=0.2, queries=30, eot=eot)
        assert asked == [False] * eot * 31  # the first squares, then each query


class TestBadInput:
    def test_square_refuses_inputs_that_are_no_images_or_too_small(self):
        with pytest.raises(AttackError, match="pixels"):
            square(nn.Linear(6, 5), torch.zeros(8, 6), torch.zeros(8, dtype=torch.long), eps=0.1)
        images, labels = batch32(features=(1, 4, 4))
        with pytest.raises(AttackError, match="5 pixels"):
            square(mlp().float(), images, labels, eps=0.1, norm="l2")

    def test_apgd_takes_rows_of_numbers(self):
        images, labels = batch(8, (6,))
        assert apgd(nn.Linear(6, 5).double(), images, labels, eps=0.1, steps=2).shape == (8, 6)

    def test_the_dlr_loss_is_refused_for_two_classes_and_rand_leaves_it_out(self):
        images, labels = batch(8, (6,), classes=2)
        network = nn.Linear(6, 2).double()
        with pytest.raises(AttackError, match="three classes"):
            apgd(network, images, labels, eps=0.1, loss="dlr")
        assert rand(network, images, labels, eps=0.1, steps=1).shape == (8, 6)  # which then goes without

    @pytest.mark.parametrize(
        "call",
        [
            lambda *batch: apgd(*batch, eps=0.1, steps=0),
            lambda *batch: apgd(*batch, eps=0.1, loss="mse"),
            lambda *batch: square(*batch, eps=0.1, queries=0),
        ],
    )
    def test_options_that_can_not_be_used_are_refused(self, network, call):
        with pytest.raises(AttackError):
            call(network, *batch32())

    def test_without_the_extra_the_error_says_how_to_get_it(self, network, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyautoattack.square", None)
        with pytest.raises(AttackError, match=r'pip install "cs-gan\[attacks\]"'):
            square(network, *batch32(), eps=0.1)

    def test_importing_the_package_does_not_load_it(self, after_torch):
        code = "import sys, cs_gan.attacks; print('pyautoattack' in sys.modules)"
        assert after_torch(code).strip() == "False"
