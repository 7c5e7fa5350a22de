"""Critics and generators that return anything but scores and images: refused by name, wherever they are called."""

import re
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from cs_gan.errors import BatchError, BlockError, ConfigError
from cs_gan.gan import (
    LOSSES,
    Consistency,
    FeatureNorm,
    ZeroCentred,
    critic_step,
    generator_step,
    gradient_penalty,
    r1_penalty,
)
from tests.core.helpers import Function
from tests.gan.networks import TinyCritic, TinyGenerator, assert_same, batches


@dataclass
class Output:
    scores: torch.Tensor


class Wrapped(nn.Module):
    """A network whose output is changed."""

    def __init__(self, inner, change):
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, x):
        return self.change(self.inner(x))


NO_SCORES = {
    "a tuple of 2 (Tensor, Tensor)": lambda y: (y, y),
    "a list of 1 (Tensor)": lambda y: [y],
    "a dict with the keys 'scores', 'features'": lambda y: {"scores": y, "features": y},
    "a Output": Output,
    "a NoneType": lambda _: None,
    "a float": lambda y: y.mean().item(),
    "a torch.int64 tensor (4,)": lambda y: y.long(),
    "a torch.complex64 tensor (4,)": lambda y: y + 0j,
}


def stepped(network):
    return torch.optim.SGD(network.parameters(), 0.1)


def critic_calls():
    """(the call as the error names it, a function of the critic)"""
    real, fake, alpha = batches(4)
    generator = TinyGenerator()
    return {
        "critic_step": lambda c: critic_step(c, stepped(c), real, fake, alpha),
        "gradient_penalty": lambda c: gradient_penalty(c, real, fake, alpha),
        "r1_penalty": lambda c: r1_penalty(c, real),
        "generator_step": lambda c: generator_step(generator, c, stepped(generator), torch.randn(4, 5)),
    }


@pytest.mark.parametrize("given", NO_SCORES)
@pytest.mark.parametrize("call", critic_calls())
def test_a_critic_that_returns_no_scores_is_refused(call, given):
    critic = Wrapped(TinyCritic(), NO_SCORES[given])
    with pytest.raises(ConfigError, match=rf"{call}: the critic gave {re.escape(given)} for 4 images.*only the scores"):
        critic_calls()[call](critic)
    assert all(p.requires_grad for p in critic.parameters())


@pytest.mark.parametrize("call", ["gradient_penalty", "r1_penalty"])
def test_a_penalty_refuses_one_number_for_a_batch(call):
    """The gradient of a mean of B scores is a B-th of that of each."""
    with pytest.raises(ConfigError, match=rf"{call}: the critic gave a torch.float32 tensor \(\) for 4 images"):
        critic_calls()[call](Wrapped(TinyCritic(), lambda y: y.mean()))


def test_one_number_for_one_image_is_its_score():
    (real, *_), critic = batches(1), TinyCritic()
    assert_same([r1_penalty(Wrapped(critic, lambda y: y.squeeze()), real)], [r1_penalty(critic, real)])


@pytest.mark.parametrize("shape", [lambda y: y[:, None], lambda y: y.view(-1, 1, 1, 1)])
@pytest.mark.parametrize("loss", LOSSES)
def test_scores_with_more_axes_are_the_same(loss, shape):
    critic, generator, batch = TinyCritic(), TinyGenerator(), batches(4)
    z, losses = torch.randn(4, 5), []
    for network in (critic, Wrapped(critic, shape)):
        terms = [ZeroCentred(1.0), Consistency(1.0, lambda x: x.flip(3))]
        optimizers = [torch.optim.SGD(part.parameters(), 0.0) for part in (critic, generator)]
        found = critic_step(network, optimizers[0], *batch, loss=loss, terms=terms)
        losses.append(found | generator_step(generator, network, optimizers[1], z, loss=loss, real=batch[0]))
    assert losses[0] == losses[1]


def test_scores_of_patches_are_means_in_the_loss_and_sums_in_the_penalty():
    critic, (real, fake, alpha) = nn.Conv2d(3, 1, 2, padding=1), batches(4)  # (B, 3, 2, 2) -> (B, 1, 3, 3)
    summed = Wrapped(critic, lambda y: y.sum((1, 2, 3)))
    losses = critic_step(critic, torch.optim.SGD(critic.parameters(), 0.0), real, fake, alpha)
    # Nine float32 numbers of order 1 are added in another order.
    torch.testing.assert_close(losses["wasserstein"], critic(real).mean() - critic(fake).mean(), rtol=1e-5, atol=1e-6)
    expected = gradient_penalty(summed, real, fake, alpha)
    torch.testing.assert_close(losses["gradient_penalty"], expected.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("given", [name for name in NO_SCORES if "tensor" not in name])
def test_a_generator_that_returns_no_images_is_refused(given):
    generator, critic = Wrapped(TinyGenerator(), NO_SCORES[given]), TinyCritic()
    with pytest.raises(
        ConfigError, match=rf"generator_step: the generator gave {re.escape(given)}, but images.*only the images"
    ):
        generator_step(generator, critic, stepped(generator), torch.randn(4, 5))
    assert all(p.requires_grad for p in critic.parameters())


@pytest.mark.parametrize("name", ["real", "fake", "alpha"])
def test_batches_that_are_no_tensors_are_named(name):
    given = dict(zip(("real", "fake", "alpha"), batches(4), strict=True))
    given[name] = (given[name], given[name])
    critic = TinyCritic()
    for call in (lambda **b: critic_step(critic, stepped(critic), **b), lambda **b: gradient_penalty(critic, **b)):
        with pytest.raises(BatchError, match=rf"got a tuple of 2 \(Tensor, Tensor\) as {name}: give a tensor"):
            call(**given)


def test_a_view_whose_scores_are_a_tuple_is_named():
    calls = []
    critic = TinyCritic()
    odd = Wrapped(critic, lambda y: calls.append(1) or (y if len(calls) < 3 else (y, y)))
    with pytest.raises(ConfigError, match=r"critic_step: the critic gave a tuple"):
        critic_step(odd, stepped(critic), *batches(4), penalty_weight=0, terms=[Consistency(1.0, lambda x: x)])


def test_feature_norm_of_a_block_that_returns_a_tuple_is_named():
    critic = TinyCritic()
    body = critic.body
    critic.body = nn.Sequential(Wrapped(body, lambda y: (y, y)), Function(lambda pair: pair[0]))
    with pytest.raises(BlockError, match=r"feature norm: block 'body.0' gave a tuple of 2 \(Tensor, Tensor\)"):
        critic_step(critic, stepped(critic), *batches(4), terms=[FeatureNorm(1.0, "body.0")])
