import copy
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn

from cs_gan import CodedSmoothing
from cs_gan.errors import ConfigError
from cs_gan.gan import CODED_ON, Consistency, ZeroCentred, critic_step, generator_step
from tests.gan.networks import (
    TinyCritic,
    TinyGenerator,
    assert_same,
    batches,
    naive_coded_penalty,
    naive_gradient_penalty,
)

# Gradients are O(0.1 to 10) sums of some hundred float32 terms; 1e-5 is two decimal places above their rounding.
GRADIENTS = {"rtol": 1e-5, "atol": 1e-6}
# Adam's first step is lr * g / (|g| + 1e-8): its error is at most the gradient's relative one times lr = 2e-4.
PARAMETERS = {"rtol": 0.0, "atol": 1e-6}
RATIO = 1.5


def adam(network):
    return torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.0, 0.9))


def gradients(network):
    return [p.grad for p in network.parameters()]


def stepped_by_hand(critic, real, fake, alpha, penalty_weight=10.0, coded_weights=None):
    """The critic after one update, written out; coded_weights: batch name -> weight of its coded penalty."""
    critic = copy.deepcopy(critic)
    optimizer = adam(critic)
    total = critic(fake).sum() / len(fake) - critic(real).sum() / len(real)
    total = total + penalty_weight * naive_gradient_penalty(critic, real, fake, alpha)
    for name, weight in (coded_weights or {}).items():
        total = total + weight * naive_coded_penalty(critic.body, {"real": real, "fake": fake}[name], RATIO)
    total.backward()
    optimizer.step()
    return critic, total.detach()


class TestCriticStep:
    @pytest.mark.parametrize("penalty_weight", [0.0, 10.0])
    def test_equals_the_update_written_out(self, penalty_weight):
        critic, batch = TinyCritic(), batches(8)
        expected, total = stepped_by_hand(critic, *batch, penalty_weight)
        losses = critic_step(critic, adam(critic), *batch, penalty_weight=penalty_weight)
        assert_same(gradients(critic), gradients(expected), **GRADIENTS)
        assert_same(critic.parameters(), expected.parameters(), **PARAMETERS)
        torch.testing.assert_close(losses["critic_loss"], total, **GRADIENTS)

    @pytest.mark.parametrize(("coded_on", "observed"), [("real", 1), ("fake", 1), ("both", 2)])
    def test_adds_the_coded_penalty_of_the_chosen_scores(self, coded_on, observed):
        critic, batch = TinyCritic(), batches(8)
        weights = {name: 3.0 for name in ("real", "fake") if coded_on in (name, "both")}
        assert len(weights) == observed
        expected, total = stepped_by_hand(critic, *batch, coded_weights=weights)
        parts = [naive_coded_penalty(critic.body, dict(real=batch[0], fake=batch[1])[name], RATIO) for name in weights]
        coded = CodedSmoothing(critic, ["body"], RATIO, weight=1.5, every=2)
        coded.set_step(4, 10)  # observed, so that the penalty counts for two steps
        losses = critic_step(critic, adam(critic), *batch, coded=coded, coded_on=coded_on)
        assert_same(gradients(critic), gradients(expected), **GRADIENTS)
        assert_same(critic.parameters(), expected.parameters(), **PARAMETERS)
        torch.testing.assert_close(losses["critic_loss"] + 3.0 * losses["critic_coded"], total, **GRADIENTS)
        torch.testing.assert_close(losses["critic_coded"], sum(parts).detach(), **GRADIENTS)

    @pytest.mark.parametrize("coded", [False, True])
    def test_refuses_to_code_on_images_that_there_are_not(self, coded):
        critic = TinyCritic()
        attached = CodedSmoothing(critic, ["body"], RATIO) if coded else None
        with pytest.raises(ConfigError, match=r"coded_on='reel'.*real, fake, both"):
            critic_step(critic, adam(critic), *batches(8), coded=attached, coded_on="reel")

    def test_a_lazily_skipped_step_is_the_plain_step_to_the_bit(self):
        critic, batch = TinyCritic(), batches(8)
        plain = copy.deepcopy(critic)
        coded = CodedSmoothing(critic, ["body"], RATIO, every=2)
        coded.set_step(3, 10)
        losses = critic_step(critic, adam(critic), *batch, coded=coded)
        without = critic_step(plain, adam(plain), *batch)
        assert_same(critic.parameters(), plain.parameters())
        assert losses == without

    @pytest.mark.parametrize("every", [1, 2])
    def test_measuring_the_share_changes_nothing_else_and_gives_that_of_the_gradients(self, every):
        critic, batch = TinyCritic().double(), [x.double() for x in batches(8)]
        twin = copy.deepcopy(critic)
        parts = []
        for penalty_weight in (0.0, 3.0):  # of the coded penalty; its gradient is the difference
            lone, coded = copy.deepcopy(critic), None
            if penalty_weight:
                coded = CodedSmoothing(lone, ["body"], RATIO, weight=penalty_weight)
            critic_step(lone, adam(lone), *batch, coded=coded)
            parts.append(dict(zip(dict(lone.named_parameters()), gradients(lone), strict=True)))
        both = [(parts[1][name] - parts[0][name], parts[0][name]) for name in parts[0] if name.startswith("body")]
        over, under = (sum(each.square().sum() for each in side).sqrt() for side in zip(*both, strict=True))
        found = {}
        for network, measure in ((critic, True), (twin, False)):
            coded = CodedSmoothing(network, ["body"], RATIO, weight=3.0, every=every)
            coded.set_step(0, 10)
            found[measure] = critic_step(network, adam(network), *batch, coded=coded, measure_share=measure)
        assert_same(critic.parameters(), twin.parameters())
        share = found[True].pop("critic_share")
        assert found[True] == found[False]
        # on average over steps; summed in float32
        torch.testing.assert_close(share.double(), over / under, rtol=1e-5, atol=0)

    def test_forgets_the_gradients_of_the_step_before(self):
        critic, batch = TinyCritic(), batches(8)
        fresh = copy.deepcopy(critic)
        for p in critic.parameters():
            p.grad = torch.full_like(p, 1e6)
        critic_step(critic, adam(critic), *batch)
        critic_step(fresh, adam(fresh), *batch)
        assert_same(critic.parameters(), fresh.parameters())

    def test_differentiates_once_through_the_function_it_is_given(self):
        critic, given = TinyCritic(), []
        critic_step(critic, adam(critic), *batches(8), backward=lambda loss: (given.append(loss), loss.backward()))
        assert len(given) == 1

    def test_gives_detached_scalars_by_name(self):
        critic, (real, fake, alpha) = TinyCritic(), batches(8)
        distance = (critic(real).mean() - critic(fake).mean()).detach()
        slope = naive_gradient_penalty(critic, real, fake, alpha).detach()
        losses = critic_step(critic, adam(critic), real, fake, alpha)
        assert list(losses) == ["critic_loss", "gradient_penalty", "wasserstein"]
        assert all(value.shape == () and not value.requires_grad for value in losses.values())
        torch.testing.assert_close(losses["wasserstein"], distance, **GRADIENTS)
        torch.testing.assert_close(losses["gradient_penalty"], slope, **GRADIENTS)

    @pytest.mark.parametrize("coded_on", CODED_ON)
    def test_in_bf16_keeps_the_gradient_penalty_in_float32(self, coded_on):
        critic, batch, seen = TinyCritic(), batches(8), []
        slope = naive_gradient_penalty(critic, *batch).detach()
        critic.body[1].register_forward_hook(lambda _module, _args, y: seen.append((len(y), y.dtype)))
        coded = CodedSmoothing(critic, ["body"], RATIO)
        autocast = partial(torch.autocast, "cpu", torch.bfloat16)
        losses = critic_step(critic, adam(critic), *batch, coded=coded, coded_on=coded_on, autocast=autocast)
        # Scores and coded passes in bf16, and one pass of 8, the last, in float32.
        assert seen[-1] == (8, torch.float32)
        assert {dtype for _, dtype in seen[:-1]} == {torch.bfloat16}
        assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
        torch.testing.assert_close(losses["gradient_penalty"], slope, **GRADIENTS)
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in critic.parameters())


class TestGeneratorStep:
    @pytest.mark.parametrize("weight", [None, 3.0])
    def test_equals_the_update_written_out(self, weight):
        generator, critic, z = TinyGenerator(), TinyCritic(), torch.randn(8, 5)
        expected = copy.deepcopy(generator)
        optimizer = adam(expected)
        total = -critic(expected(z)).sum() / 8
        if weight:
            part = naive_coded_penalty(expected.body, z, RATIO)
            total = total + weight * part
        total.backward()
        optimizer.step()
        critic.zero_grad()

        coded = CodedSmoothing(generator, ["body"], RATIO, weight=weight) if weight else None
        losses = generator_step(generator, critic, adam(generator), z, coded=coded)
        assert_same(gradients(generator), gradients(expected), **GRADIENTS)
        assert_same(generator.parameters(), expected.parameters(), **PARAMETERS)
        assert list(losses) == ["generator_loss"] + ["generator_coded"] * bool(weight)
        assert all(value.shape == () and not value.requires_grad for value in losses.values())
        coded_part = weight * losses["generator_coded"] if weight else 0
        torch.testing.assert_close(losses["generator_loss"] + coded_part, total.detach(), **GRADIENTS)
        if weight:
            torch.testing.assert_close(losses["generator_coded"], part.detach(), **GRADIENTS)

    @staticmethod
    def critic_with_a_frozen_layer_and_gradients():
        critic = TinyCritic()
        critic(batches(4)[0]).sum().backward()
        critic.body[1].requires_grad_(False)
        return critic

    @staticmethod
    def state_of(critic):
        values = [p.detach().clone() for p in critic.parameters()]
        return values, [p.grad.clone() for p in critic.parameters()], [p.requires_grad for p in critic.parameters()]

    @pytest.mark.parametrize("where", [None, "generator", "critic", "backward", "optimizer"])
    def test_leaves_the_critic_as_it_was_also_when_it_fails(self, where, monkeypatch):
        critic, generator = self.critic_with_a_frozen_layer_and_gradients(), TinyGenerator()
        optimizer, z, backward = adam(generator), torch.randn(8, 5), torch.Tensor.backward
        before = self.state_of(critic)

        def fail(*_args, **_kwargs):
            raise RuntimeError("out of memory")

        if where == "backward":
            backward = fail
        elif where == "optimizer":
            monkeypatch.setattr(optimizer, "step", fail)
        elif where:
            monkeypatch.setattr({"generator": generator, "critic": critic}[where], "forward", fail)
        with pytest.raises(RuntimeError, match="out of memory") if where else nullcontext():
            generator_step(generator, critic, optimizer, z, backward=backward)
        after = self.state_of(critic)
        assert_same(after[0], before[0])
        assert_same(after[1], before[1])
        assert after[2] == before[2]

    def test_computes_no_gradient_for_the_critic(self):
        generator, critic, wanted = TinyGenerator(), TinyCritic(), []
        critic.head.register_forward_hook(lambda head, _args, _y: wanted.append(head.weight.requires_grad))
        generator_step(generator, critic, adam(generator), torch.randn(8, 5))
        assert wanted == [False]
        assert all(p.grad is None for p in critic.parameters())

    def test_in_bf16_gives_finite_float32_losses_and_weights(self):
        generator, critic, seen = TinyGenerator(), TinyCritic(), []
        critic.head.register_forward_hook(lambda _module, _args, y: seen.append(y.dtype))
        coded = CodedSmoothing(generator, ["body"], RATIO)
        autocast = partial(torch.autocast, "cpu", torch.bfloat16)
        losses = generator_step(generator, critic, adam(generator), torch.randn(8, 5), coded=coded, autocast=autocast)
        assert seen == [torch.bfloat16]
        assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in generator.parameters())


class OfClasses(nn.Module):
    """A network that takes labels too: the tiny one, times a factor for the class."""

    def __init__(self, network):
        super().__init__()
        self.network, self.factors = network, nn.Parameter(torch.tensor([1.0, 2.0, -1.0]))

    def forward(self, x, labels):
        out = self.network(x)
        return out * self.factors[labels].view(-1, *[1] * (out.dim() - 1))


class Bound(nn.Module):
    """The same with labels that are known before."""

    def __init__(self, network, labels):
        super().__init__()
        self.network, self.labels = network, labels

    def forward(self, x):
        return self.network(x, self.labels)


class TestLabels:
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0, 1])

    def test_a_critic_step_gives_every_call_of_the_critic_the_labels(self):
        critic, (real, fake, alpha) = OfClasses(TinyCritic()), batches(8)
        twin = copy.deepcopy(critic)
        terms = [ZeroCentred(1.0), ZeroCentred(1.0, "fake"), Consistency(1.0, lambda x: x.flip(3))]
        losses = critic_step(critic, adam(critic), real, fake, alpha, labels=self.labels, terms=terms)
        bound = Bound(twin, self.labels)
        expected = critic_step(bound, adam(bound), real, fake, alpha, terms=terms)
        assert losses == expected
        assert_same(critic.parameters(), twin.parameters())

    def test_a_generator_step_gives_both_networks_the_labels(self):
        generator, critic = OfClasses(TinyGenerator()), OfClasses(TinyCritic())
        twin = copy.deepcopy(generator)
        losses = generator_step(generator, critic, adam(generator), torch.ones(8, 5), labels=self.labels)
        bound = Bound(twin, self.labels)
        assert losses == generator_step(bound, Bound(critic, self.labels), adam(bound), torch.ones(8, 5))
        assert_same(generator.parameters(), twin.parameters())
