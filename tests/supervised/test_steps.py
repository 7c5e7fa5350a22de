import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cs_gan import CodedSmoothing, Linear
from cs_gan.randomness import stream
from cs_gan.supervised import CutMix, ManifoldMixUp, MixUp, classifier_step, draw_step, jacobian_penalty
from tests.gan.networks import assert_same, naive_coded_penalty
from tests.supervised.networks import CLASSES, batch, mlp, step, stepped_by_hand

EXACT = {"rtol": 1e-10, "atol": 1e-12}  # float64 sums of some hundred terms of O(1)
# torchvision makes targets in float32, whose rounding the gradients get.
MIXED = {"rtol": 1e-5, "atol": 1e-7}
RATIO = 1.5


def share_for(mix, images, labels, seed=0):
    """The lambda that a step with this seed draws."""
    draw = mix.draw(nn.Identity(), images.shape, stream(seed))
    with mix.mixing(nn.Identity(), images, labels, CLASSES, draw) as (_, targets):
        return targets[0, labels[0]].double()


def two_cross_entropies(logits, labels, share):
    return share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, labels.roll(1))


class TestOneMethodAtATime:
    def test_with_all_off_it_is_plain_sgd_to_the_bit(self):
        model, (images, labels) = mlp(torch.float32), batch(8, torch.float32)
        expected = stepped_by_hand(model, lambda m: F.cross_entropy(m(images), labels))
        loss = F.cross_entropy(model(images), labels)
        losses = step(model, images, labels)
        assert_same(model.parameters(), expected.parameters())
        assert losses == {"loss": loss.detach()}

    def test_label_smoothing_equals_torchs(self):
        model, (images, labels) = mlp(), batch(8)
        expected = stepped_by_hand(model, lambda m: F.cross_entropy(m(images), labels, label_smoothing=0.2))
        step(model, images, labels, label_smoothing=0.2)
        assert_same(model.parameters(), expected.parameters(), **EXACT)

    def test_mixup_is_the_weighted_sum_of_two_cross_entropies(self):
        model, (images, labels) = mlp(), batch(8)
        share = share_for(MixUp(1.0), images, labels)
        inputs = share * images + (1 - share) * images.roll(1, 0)
        loss = two_cross_entropies(model(inputs), labels, share).detach()
        expected = stepped_by_hand(model, lambda m: two_cross_entropies(m(inputs), labels, share))
        losses = step(model, images, labels, mix=MixUp(1.0))
        assert_same(model.parameters(), expected.parameters(), **MIXED)
        torch.testing.assert_close(losses["loss"], loss, **MIXED)

    def test_a_batch_that_the_mixs_probability_spares_is_a_plain_step(self):
        seeds = {MixUp(1.0, probability=0.5).applies(stream(seed)): seed for seed in range(10)}
        for mixed, seed in seeds.items():
            model, (images, labels) = mlp(), batch(8)
            plain = stepped_by_hand(model, lambda m: F.cross_entropy(m(images), labels))  # noqa: B023
            step(model, images, labels, seed, mix=MixUp(1.0, probability=0.5))
            pairs = zip(model.parameters(), plain.parameters(), strict=True)
            assert all(torch.allclose(a, b, **EXACT) for a, b in pairs) != mixed
        assert len(seeds) == 2

    def test_cutmix_weights_two_cross_entropies_by_the_area_of_the_box(self):
        model, (images, labels) = mlp(), batch(8)
        seed = next(s for s in range(50) if share_for(CutMix(1.0), images, labels, s) == 0.75)
        draw = CutMix(1.0).draw(model, images.shape, stream(seed))
        with CutMix(1.0).mixing(model, images, labels, CLASSES, draw) as (inputs, _):
            assert not torch.equal(inputs, images)
        expected = stepped_by_hand(model, lambda m: two_cross_entropies(m(inputs), labels, 0.75))
        step(model, images, labels, seed, mix=CutMix(1.0))
        assert_same(model.parameters(), expected.parameters(), **EXACT)  # a share of 3/4 has no rounding

    def test_manifold_mixup_mixes_hidden_features(self):
        model, (images, labels) = mlp(), batch(8)
        share = share_for(MixUp(1.0), images, labels)

        def loss(m):
            hidden = m[:3](images)
            return two_cross_entropies(m[3](share * hidden + (1 - share) * hidden.roll(1, 0)), labels, share)

        expected = stepped_by_hand(model, loss)
        step(model, images, labels, mix=ManifoldMixUp(1.0, ["3"]))
        assert_same(model.parameters(), expected.parameters(), **MIXED)

    @pytest.mark.parametrize(
        ("name", "penalty"),
        [
            ("logit_norm", lambda m, images: m(images).square().mean()),
            ("jacobian", lambda m, images: jacobian_penalty(m, images, stream(0))),
        ],
    )
    def test_a_penalty_counts_with_its_weight_and_is_reported_without(self, name, penalty):
        model, (images, labels) = mlp(), batch(8)
        value = penalty(model, images).detach()
        expected = stepped_by_hand(model, lambda m: F.cross_entropy(m(images), labels) + 0.3 * penalty(m, images))
        losses = step(model, images, labels, **{name: 0.3})
        assert_same(model.parameters(), expected.parameters(), **EXACT)
        torch.testing.assert_close(losses[name], value, **EXACT)


class TestCoded:
    @pytest.mark.parametrize("mu", [0.0, 0.3])
    @pytest.mark.parametrize(("block", "split"), [("", None), ("3", 3)])
    def test_trades_the_task_and_its_penalties_for_the_coded_one(self, mu, block, split):
        model, (images, labels) = mlp(), batch(8)

        def coded_part(m):
            return naive_coded_penalty(m, images, RATIO) if split is None else naive_coded_penalty(
                m[split:], m[:split](images), RATIO
            )  # fmt: skip

        def loss(m):
            task = F.cross_entropy(m(images), labels) + 0.1 * m(images).square().mean()
            return (1 - mu) * task + mu * coded_part(m)

        task, penalty = F.cross_entropy(model(images), labels).detach(), coded_part(model).detach()
        expected = stepped_by_hand(model, loss)
        coded = CodedSmoothing(model, [block], RATIO)
        losses = step(model, images, labels, logit_norm=0.1, coded=coded, mu=mu)
        assert_same(model.parameters(), expected.parameters(), **EXACT)
        torch.testing.assert_close(losses["loss"], task, **EXACT)
        torch.testing.assert_close(losses["coded"], penalty, **EXACT)

    def test_measures_the_share_of_mu_penalty_in_the_gradient_and_changes_nothing_else(self):
        model, (images, labels), mu = mlp(), batch(8), 0.3
        task = (1 - mu) * (F.cross_entropy(model(images), labels) + 0.1 * model(images).square().mean())
        sides = [mu * naive_coded_penalty(model, images, RATIO), task]
        slopes = [torch.autograd.grad(side, list(model.parameters())) for side in sides]
        over, under = (sum(slope.square().sum() for slope in each).sqrt() for each in slopes)
        twin, found = copy.deepcopy(model), {}
        for network, measure in ((model, True), (twin, False)):
            coded = CodedSmoothing(network, [""], RATIO)
            found[measure] = step(network, images, labels, logit_norm=0.1, coded=coded, mu=mu, measure_share=measure)
        assert_same(model.parameters(), twin.parameters())
        share = found[True].pop("coded_share")
        assert found[True] == found[False]
        torch.testing.assert_close(share.double(), over / under, rtol=1e-5, atol=0)  # summed in float32

    def test_lazily_the_task_weighs_the_same_and_the_penalty_every_times(self):
        model, (images, labels) = mlp(), batch(8)
        for at, factor in [(4, 2), (5, 0)]:
            expected = stepped_by_hand(
                model,
                lambda m, factor=factor: (
                    0.7 * F.cross_entropy(m(images), labels) + factor * 0.3 * naive_coded_penalty(m, images, RATIO)
                ),
            )
            trained = copy.deepcopy(model)
            coded = CodedSmoothing(trained, [""], RATIO, every=2)
            coded.set_step(at, 10)
            losses = step(trained, images, labels, coded=coded, mu=0.3)
            assert_same(trained.parameters(), expected.parameters(), **EXACT)
            assert ("coded" in losses) == bool(factor)

    @pytest.mark.parametrize("mix", [MixUp(1.0), ManifoldMixUp(1.0, ["input"])])
    def test_of_the_whole_model_codes_the_mixed_batch(self, mix):
        model, (images, labels) = mlp(), batch(8)
        share = share_for(mix, images, labels)
        inputs = share * images + (1 - share) * images.roll(1, 0)
        expected = stepped_by_hand(
            model,
            lambda m: 0.7 * two_cross_entropies(m(inputs), labels, share) + 0.3 * naive_coded_penalty(m, inputs, RATIO),
        )
        step(model, images, labels, mix=mix, coded=CodedSmoothing(model, [""], RATIO), mu=0.3)
        assert_same(model.parameters(), expected.parameters(), **MIXED)

    @pytest.mark.parametrize("ratio", [1.0, RATIO])  # at N = K a coded batch could be taken for a plain one
    @pytest.mark.parametrize(("mixed", "coded", "split"), [("3", "3", 3), ("1", "3", 3), ("1", "2", 2)])
    def test_codes_what_manifold_mixup_hands_on(self, mixed, coded, split, ratio):
        model, (images, labels) = mlp(), batch(8)
        share = share_for(MixUp(1.0), images, labels)

        def loss(m):
            at = int(mixed)
            hidden = m[:at](images)
            hidden = m[at:split](share * hidden + (1 - share) * hidden.roll(1, 0))
            task = two_cross_entropies(m[split:](hidden), labels, share)
            return 0.7 * task + 0.3 * naive_coded_penalty(m[split], hidden, ratio)

        expected = stepped_by_hand(model, loss)
        coded = CodedSmoothing(model, [coded], ratio)
        step(model, images, labels, mix=ManifoldMixUp(1.0, [mixed]), coded=coded, mu=0.3)
        assert_same(model.parameters(), expected.parameters(), **MIXED)
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def everything(model, blocks=("3",), mixed=("input", "1", "3")):
    coded = CodedSmoothing(model, blocks, Linear(1.0, 1.5))
    coded.set_step(2, 10)
    penalties = {"label_smoothing": 0.1, "logit_norm": 0.01, "jacobian": 0.01}
    return {"mix": ManifoldMixUp(1.0, mixed), "coded": coded, "mu": 0.3} | penalties


class TestEverythingAtOnce:
    def test_is_a_function_of_weights_batch_and_seed(self):
        (images, labels), states = batch(8), []
        for draws in (0, 5):
            torch.manual_seed(0)
            model = mlp()
            torch.rand(draws)
            before = torch.get_rng_state()
            losses = step(model, images, labels, seed=7, **everything(model))
            assert torch.equal(torch.get_rng_state(), before)
            states.append([*model.parameters(), *losses.values()])
        assert_same(*states)

    @pytest.mark.parametrize("mix", [None, MixUp(1.0, probability=0.5), CutMix(1.0), ManifoldMixUp(1.0, ["1", "3"])])
    def test_a_step_whose_draws_were_made_ahead_is_the_same(self, mix):
        images, labels = batch(8)
        first, ends = mlp(), []
        for ahead in (False, True):
            model, source = copy.deepcopy(first), stream(5)
            if ahead:
                source = draw_step(source, model, images.shape, CLASSES, mix, 0.3)
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            options = {"num_classes": CLASSES, "mix": mix, "jacobian": 0.3}
            losses = classifier_step(model, optimizer, images, labels, generator=source, **options)
            ends.append([*losses.values(), *model.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))

    def test_differentiates_once_and_gives_detached_scalars(self):
        model, given = mlp(), []
        losses = step(
            model, *batch(8), backward=lambda loss: (given.append(loss), loss.backward()), **everything(model)
        )
        assert len(given) == 1
        assert list(losses) == ["loss", "logit_norm", "jacobian", "coded"]
        assert all(value.shape == () and not value.requires_grad for value in losses.values())

    def test_forgets_the_gradients_of_the_step_before(self):
        model = mlp()
        fresh = copy.deepcopy(model)
        for p in model.parameters():
            p.grad = torch.full_like(p, 1e6)
        step(model, *batch(8))
        step(fresh, *batch(8))
        assert_same(model.parameters(), fresh.parameters())

    @pytest.mark.parametrize("mix", [MixUp(1.0), CutMix(1.0), ManifoldMixUp(1.0, ["1", "3"])])
    def test_in_bf16_losses_and_weights_are_finite_and_float32(self, mix):
        model, seen = mlp(torch.float32), []
        model[3].register_forward_hook(lambda _module, _args, y: seen.append((len(y), y.dtype)))
        options = everything(model) | {"mix": mix}
        autocast = partial(torch.autocast, "cpu", torch.bfloat16)
        losses = step(model, *batch(8, torch.float32), autocast=autocast, **options)
        # The coded pass comes before the plain one's hook; the Jacobian's is last and in float32.
        assert {dtype for _, dtype in seen[:-1]} == {torch.bfloat16}
        assert seen[-1] == (8, torch.float32)
        assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
