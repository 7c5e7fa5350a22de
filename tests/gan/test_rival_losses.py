"""The losses against their equations, written out sample by sample with Python's floats."""

import pytest
import torch
from scipy.special import log_expit

from cs_gan.gan import LOSSES, critic_step, generator_step
from cs_gan.gan.adversarial_losses import adversarial_loss
from tests.gan.networks import TinyCritic, TinyGenerator, batches

REAL, FAKE = [1.5, -0.25, 3.0, -40.0], [-2.0, 0.5, 0.75, 60.0]


EQUATIONS = {
    "wasserstein": lambda r, f: sum(f) / len(f) - sum(r) / len(r),
    "hinge": lambda r, f: sum(max(0, 1 - x) for x in r) / len(r) + sum(max(0, 1 + x) for x in f) / len(f),
    "non-saturating": lambda r, f: (
        -sum(map(log_expit, r)) / len(r) - sum(log_expit(-x) for x in f) / len(f)  # 1 - s(x) = s(-x)
    ),
    "relativistic": lambda r, f: -sum(log_expit(x - y) for x, y in zip(r, f, strict=True)) / len(r),
}
GENERATOR = {
    "wasserstein": lambda r, f: -sum(f) / len(f),
    "hinge": lambda r, f: -sum(f) / len(f),
    "non-saturating": lambda r, f: -sum(map(log_expit, f)) / len(f),
    "relativistic": lambda r, f: -sum(log_expit(y - x) for x, y in zip(r, f, strict=True)) / len(r),
}


@pytest.mark.parametrize("name", LOSSES)
def test_both_losses_are_their_equations(name):
    loss, real, fake = adversarial_loss(name), torch.tensor(REAL), torch.tensor(FAKE)
    assert loss.critic(real, fake).item() == pytest.approx(EQUATIONS[name](REAL, FAKE), rel=1e-6)
    given = (fake, real) if loss.paired else (fake,)
    assert loss.generator(*given).item() == pytest.approx(GENERATOR[name](REAL, FAKE), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_both_losses_push_scores_the_right_way(name):
    real, fake = (torch.zeros(4, requires_grad=True) for _ in range(2))
    adversarial_loss(name).critic(real, fake).backward()
    assert (real.grad < 0).all()  # a step down the loss raises real scores
    assert (fake.grad > 0).all()
    fake.grad = None
    loss = adversarial_loss(name)
    loss.generator(*((fake, real.detach()) if loss.paired else (fake,))).backward()
    assert (fake.grad < 0).all()


def test_the_relativistic_loss_ignores_the_level_of_the_scores():
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    loss = adversarial_loss("relativistic").critic
    torch.testing.assert_close(loss(real + 7, fake + 7), loss(real, fake))


def test_an_unknown_loss_is_refused_with_those_there_are():
    critic = TinyCritic()
    with pytest.raises(ValueError, match="loss='lsgan' is unknown: choose one of wasserstein, hinge"):
        critic_step(critic, torch.optim.Adam(critic.parameters()), *batches(4), loss="lsgan")


@pytest.mark.parametrize("real", [None, torch.zeros(3, 3, 2, 2)])
def test_the_relativistic_generator_wants_as_many_real_images(real):
    generator = TinyGenerator()
    with pytest.raises(ValueError, match=r"4 latents and (no|3) real images: this loss pairs them"):
        generator_step(
            generator,
            TinyCritic(),
            torch.optim.Adam(generator.parameters()),
            torch.randn(4, 5),
            loss="relativistic",
            real=real,
        )
