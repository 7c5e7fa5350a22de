"""R1, R2, consistency, LeCam and feature norm against loops over samples; the terms of a step by hand."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from cs_gan import CodedSmoothing, HeldShare
from cs_gan.core.share import UNMEASURED
from cs_gan.errors import BlockError, CodeError, ConfigError
from cs_gan.gan import (
    Consistency,
    FeatureNorm,
    GradientPenalty,
    LeCam,
    LeCamTerm,
    ZeroCentred,
    consistency_penalty,
    critic_step,
    feature_norm_penalty,
    generator_step,
    r1_penalty,
    spectrally_normalised,
)
from tests.gan.networks import TinyCritic, TinyGenerator, assert_same, batches

# float32 keeps 6e-8 relative; a sum over a dozen features and as many samples costs about ten times that.
CLOSE = {"rtol": 2e-6, "atol": 2e-6}
GRADIENTS = {"rtol": 1e-5, "atol": 1e-6}


def naive_r1(critic, images):
    """One sample at a time; differentiable."""
    terms = []
    for x in images:
        x = x.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(critic(x[None]).sum(), x, create_graph=True)
        terms.append(slope.square().sum())
    return torch.stack(terms).mean()


class TestR1:
    def test_equals_a_loop_over_samples_in_value_and_gradient(self):
        critic, (real, *_) = TinyCritic(), batches(7)
        penalty, expected = r1_penalty(critic, real), naive_r1(critic, real)
        torch.testing.assert_close(penalty, expected, **CLOSE)
        parameters = [p for name, p in critic.named_parameters() if name != "head.bias"]
        assert_same(torch.autograd.grad(penalty, parameters), torch.autograd.grad(expected, parameters), **CLOSE)

    def test_leaves_the_images_as_they_were(self):
        real, *_ = batches(4)
        r1_penalty(TinyCritic(), real).backward()
        assert not real.requires_grad
        assert real.grad is None
        fake = real.clone().requires_grad_()
        r1_penalty(TinyCritic(), fake).backward()
        assert fake.grad is None

    def test_stays_in_float32_under_autocast_to_the_bit(self):
        critic, (real, *_) = TinyCritic(), batches(4)
        plain = r1_penalty(critic, real)
        with torch.autocast("cpu", torch.bfloat16):
            inside = r1_penalty(critic, real)
        assert_same([inside], [plain])


def test_consistency_is_the_mean_squared_difference():
    assert consistency_penalty(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 5.0])).item() == (1 + 9) / 2


PENALTIES = {
    "consistency": consistency_penalty,
    "feature norm": lambda first, second: feature_norm_penalty(first) + feature_norm_penalty(second),
    "LeCam": lambda first, second: LeCam()(first, second),
}


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_of_half_precision_are_squared_in_float32(name, dtype):
    """As a critic gives them inside a user's autocast. 300 squared is infinite in float16."""
    generator = torch.Generator().manual_seed(0)
    first, second = (300 + torch.randn(50, generator=generator).to(dtype) for _ in range(2))
    found = PENALTIES[name](first, second)
    assert found.dtype == torch.float32
    assert_same([found], [PENALTIES[name](first.float(), second.float())])
    wide = PENALTIES[name](first.double(), second.double())
    assert found.item() == pytest.approx(wide.item(), rel=1e-4)  # LeCam's averages are float32, 300 (1 + 6e-8)
    if name != "LeCam":
        assert wide.dtype == torch.float64


class TestLeCam:
    def test_equals_the_equation_written_out_over_steps(self):
        lecam, real_anchor, fake_anchor = LeCam(decay=0.75), 0.0, 0.0
        for step in range(7):
            real, fake = torch.randn(5), torch.randn(3)
            share = max(1 / (step + 1), 1 - 0.75)  # a plain mean first
            real_anchor += share * (real.mean().item() - real_anchor)
            fake_anchor += share * (fake.mean().item() - fake_anchor)
            expected = sum((x - fake_anchor) ** 2 for x in real.tolist()) / 5
            expected += sum((x - real_anchor) ** 2 for x in fake.tolist()) / 3
            assert lecam(real, fake).item() == pytest.approx(expected, rel=1e-5)

    def test_gradients_flow_to_scores_and_not_through_the_averages(self):
        lecam, real = LeCam(), torch.tensor([1.0, 3.0], requires_grad=True)
        lecam(real, torch.zeros(2)).backward()
        assert_same([real.grad], [torch.tensor([1.0, 3.0])])  # 2 (x - a_F) / B with a_F = 0

    def test_its_averages_are_in_the_state_dict(self):
        lecam, other = LeCam(), LeCam()
        lecam(torch.ones(2), torch.zeros(2))
        other.load_state_dict(lecam.state_dict())
        assert_same([lecam(torch.ones(2), torch.ones(2))], [other(torch.ones(2), torch.ones(2))])

    def test_processes_average_the_scores_on_their_device(self, reduced_on):
        """Not on that of the buffers, which NCCL may not know. Without a GPU, the meta device stands for it."""
        with pytest.raises(NotImplementedError, match="meta"):  # then they go to the buffers, on the CPU
            LeCam()(torch.ones(2, device="meta"), torch.ones(2, device="meta"))
        assert reduced_on == ["meta"]

    def test_a_decay_of_one_is_refused(self):
        with pytest.raises(ValueError, match="decay=1"):
            LeCam(1)


def by_hand(critic, real, fake, extra):
    """The gradients of a hinge step with something added."""
    critic = copy.deepcopy(critic)
    loss = (1 - critic(real)).relu().mean() + (1 + critic(fake)).relu().mean()
    (loss + extra(critic)).backward()
    return [p.grad for p in critic.parameters()]


def mirrored(x):
    return x.flip(3)


TERMS = {
    "r1": (lambda: ZeroCentred(3.0), lambda c, r, f: 1.5 * naive_r1(c, r)),
    "r2": (lambda: ZeroCentred(3.0, "fake"), lambda c, r, f: 1.5 * naive_r1(c, f)),
    "consistency": (
        lambda: Consistency(10.0, mirrored),
        lambda c, r, f: 10 * sum((c(x[None]) - c(mirrored(x[None]))) ** 2 for x in r).squeeze() / len(r),
    ),
    "consistency_fake": (
        lambda: Consistency(10.0, mirrored, "fake"),
        lambda c, r, f: 10 * sum((c(x[None]) - c(mirrored(x[None]))) ** 2 for x in f).squeeze() / len(f),
    ),
    "lecam": (
        lambda: LeCamTerm(0.3, LeCam()),
        lambda c, r, f: (
            0.3 * ((c(r) - c(f).mean().detach()).square().mean() + (c(f) - c(r).mean().detach()).square().mean())
        ),
    ),
    "feature_norm": (lambda: FeatureNorm(2.0, "body"), lambda c, r, f: 2 * c.body(r).square().mean()),
}


@pytest.mark.parametrize("coded_on", [None, "real", "fake", "both"])
@pytest.mark.parametrize("name", TERMS)
def test_a_step_with_a_term_has_the_gradients_of_the_sum(name, coded_on):
    make, extra = TERMS[name]
    critic, (real, fake, alpha) = TinyCritic(), batches(8)

    def both(critic):
        total = extra(critic, real, fake)
        if coded_on:
            coded = CodedSmoothing(critic, ["body"], 1.5, weight=0.7)
            with coded.observe():
                for batch, kind in ((real, "real"), (fake, "fake")):
                    if coded_on in (kind, "both"):
                        critic(batch)
            total = total + coded.penalty()
            coded.detach()
        return total

    expected = by_hand(critic, real, fake, both)
    coded = CodedSmoothing(critic, ["body"], 1.5, weight=0.7) if coded_on else None
    losses = critic_step(
        critic,
        torch.optim.Adam(critic.parameters()),
        real,
        fake,
        alpha,
        loss="hinge",
        penalty_weight=0,
        terms=[make()],
        coded=coded,
        coded_on=coded_on or "real",
    )
    assert_same([p.grad for p in critic.parameters()], expected, **GRADIENTS)
    assert name in losses
    assert "gradient_penalty" not in losses  # it has no weight


def test_the_critics_loss_is_the_sum_of_its_weighted_terms():
    critic, batch = TinyCritic(), batches(8)
    optimizer = torch.optim.SGD(critic.parameters(), 0.0)
    plain = critic_step(critic, optimizer, *batch)
    terms = [ZeroCentred(2.0), FeatureNorm(0.5, "body")]
    both = critic_step(critic, optimizer, *batch, terms=terms)
    expected = plain["critic_loss"] + both["r1"] + 0.5 * both["feature_norm"]
    torch.testing.assert_close(both["critic_loss"], expected, **CLOSE)


def test_terms_of_one_name_all_count_each_with_its_weight():
    critic, batch = TinyCritic(), batches(8)
    optimizer = torch.optim.SGD(critic.parameters(), 0.0)
    first, second = FeatureNorm(HeldShare(0.1, start=0.5), "body"), FeatureNorm(3.0, "body.0")
    losses = critic_step(critic, optimizer, *batch, terms=[first, second])
    alone = {name: critic_step(critic, optimizer, *batch, terms=[FeatureNorm(1, name)]) for name in ("body", "body.0")}
    torch.testing.assert_close(losses["feature_norm"], alone["body"]["feature_norm"])
    torch.testing.assert_close(losses["feature_norm_2"], alone["body.0"]["feature_norm"])
    plain = critic_step(critic, optimizer, *batch)["critic_loss"]
    expected = plain + 0.5 * losses["feature_norm"] + 3 * losses["feature_norm_2"]
    torch.testing.assert_close(losses["critic_loss"], expected, **CLOSE)


def test_a_second_gradient_penalty_beside_the_default_is_refused():
    critic, (real, fake, alpha) = TinyCritic(), batches(8)
    optimizer, terms = torch.optim.SGD(critic.parameters(), 0.0), [GradientPenalty(5.0, alpha)]
    with pytest.raises(ConfigError, match="penalty_weight=0"):
        critic_step(critic, optimizer, real, fake, alpha, terms=terms)
    assert "gradient_penalty" in critic_step(critic, optimizer, real, fake, alpha, terms=terms, penalty_weight=0)


def test_a_term_whose_share_is_never_measured_is_an_error():
    term = FeatureNorm(HeldShare(0.1), "body")
    for _ in range(UNMEASURED - 1):
        term.weighted(torch.ones(()))
    with pytest.raises(CodeError, match="never saw a gradient"):
        term.weighted(torch.ones(()))


def test_a_block_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(BlockError, match=r"no block 'blocks.9'. It has body, body.0"):
        FeatureNorm(1.0, "blocks.9").watching(TinyCritic())


def normalised_critic():
    critic = TinyCritic()
    critic.body = nn.Sequential(nn.Conv2d(3, 8, 2), nn.LeakyReLU(0.2), nn.Flatten())
    return spectrally_normalised(critic)


class TestSpectralNorm:
    def test_every_weight_gets_a_largest_singular_value_of_one(self):
        critic = normalised_critic()
        for _ in range(100):
            critic(torch.randn(2, 3, 2, 2))  # a power iteration each
        for layer in (critic.body[0], critic.head):
            largest = torch.linalg.svdvals(layer.weight.flatten(1))[0].item()
            assert largest == pytest.approx(1, abs=1e-4)

    @pytest.mark.parametrize("autocast", [nullcontext, lambda: torch.autocast("cpu", torch.bfloat16)])
    def test_a_step_takes_one_power_iteration_and_trains_the_original_weights(self, autocast):
        critic = normalised_critic()
        layer = critic.head.parametrizations.weight
        expected = copy.deepcopy(layer)
        expected()  # one use in training mode, one iteration
        before = layer.original.detach().clone()
        coded = CodedSmoothing(critic, ["body"], 1.5)
        optimizer = torch.optim.Adam(critic.parameters(), 1e-3)
        critic_step(critic, optimizer, *batches(8), coded=coded, coded_on="both", autocast=autocast)
        assert_same([layer[0]._u], [expected[0]._u])
        assert not torch.equal(layer.original, before)
        assert not parametrize._cache_enabled

    def test_the_generator_step_leaves_the_weights_alone(self):
        critic, generator = normalised_critic(), TinyGenerator()
        before = copy.deepcopy(list(critic.parameters()))
        generator_step(generator, critic, torch.optim.Adam(generator.parameters()), torch.randn(4, 5), loss="hinge")
        assert_same(critic.parameters(), before)
        assert all(p.requires_grad and p.grad is None for p in critic.parameters())


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), "1"])
def test_a_term_refuses_a_weight_that_is_no_number_from_0_on(weight):
    with pytest.raises(ConfigError, match=r"FeatureNorm: weight = .* must be 0 or more"):
        FeatureNorm(weight, "body")
