import copy

import pytest
import torch
from torch import nn

from cs_gan import RandomizedCodedInference
from cs_gan.attacks import Ball, eps_from_pixels, fgsm, fresh, pgd
from cs_gan.attacks.gradient import Objective, margin
from tests.attacks.networks import Recorder, batch, generator

NORMS = ("linf", "l2")


def distances(adversarial, images, norm):
    delta = (adversarial - images).flatten(1)
    return delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)


# -- an independent implementation, sample by sample, from the definition ----------------------------


def one_gradient(network, image, label):
    """By backward() on one sample, which for a network that doesn't mix is its row of the batch's gradient."""
    x = image.clone()[None].requires_grad_()
    loss = -network(x).log_softmax(1)[0, label]
    copied = torch.autograd.grad(loss, x)[0][0]
    return copied


def pgd_by_definition(network, images, labels, eps, step, steps, norm):
    result = []
    for image, label in zip(images, labels, strict=True):
        x = image.clone()
        for _ in range(steps):
            g = one_gradient(network, x, label)
            if norm == "linf":
                x = x + step * torch.sign(g)
                x = torch.maximum(torch.minimum(x, image + eps), image - eps)
            else:
                x = x + step * g / g.square().sum().sqrt()
                length = (x - image).square().sum().sqrt()
                if length > eps:
                    x = image + (x - image) * eps / length
            x = torch.clip(x, -1, 1)
        result.append(x)
    return torch.stack(result)


class TestParity:
    @pytest.mark.parametrize("eps", [0.02, 0.3, 2.0])
    def test_fgsm_is_one_signed_step(self, network, eps):
        images, labels = batch()
        expected = pgd_by_definition(network, images, labels, eps, eps, 1, "linf")
        torch.testing.assert_close(fgsm(network, images, labels, eps=eps), expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize(("eps", "step"), [(0.1, 0.03), (0.6, 0.1), (5.0, 0.7)])
    def test_pgd_without_random_start_equals_its_definition(self, network, norm, eps, step):
        images, labels = batch()
        ours = pgd(network, images, labels, eps=eps, step=step, steps=7, norm=norm, random_start=False)
        expected = pgd_by_definition(network, images, labels, eps, step, 7, norm)
        # Double precision; the two projections round differently, and steps carry that on.
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)

    def test_the_default_step_is_that_of_madry(self, network):
        images, labels = batch()
        ours = pgd(network, images, labels, eps=0.1, steps=10, random_start=False)
        assert torch.equal(ours, pgd(network, images, labels, eps=0.1, steps=10, step=0.025, random_start=False))


class TestLinearModel:
    """Two classes, logits W x: the margin is linear, so the best perturbation is known in closed form."""

    @pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
    @pytest.mark.parametrize("norm", NORMS)
    def test_the_optimal_perturbation_is_found(self, norm, loss):
        model = nn.Linear(6, 2).double()
        images, labels = torch.rand(5, 6, generator=generator()).double() - 0.5, torch.tensor([0, 1, 1, 0, 1])
        towards = (model.weight[1 - labels] - model.weight[labels]).detach()
        direction = towards.sign() if norm == "linf" else towards / towards.norm(dim=1, keepdim=True)
        # On the sphere a random start is forgotten by a factor eps / step in every step.
        for attack, options in ((fgsm, {}), (pgd, {"steps": 5, "step": 1e3})):
            # high = 9: the closed form has no box
            ours = attack(model, images, labels, eps=0.2, norm=norm, loss=loss, low=-9, high=9, **options)
            torch.testing.assert_close(ours, images + 0.2 * direction, rtol=0, atol=1e-9)
        dual = towards.abs().sum(1) if norm == "linf" else towards.norm(dim=1)
        gain = margin(model(ours), labels) - margin(model(images), labels)
        torch.testing.assert_close(gain, 0.2 * dual, rtol=0, atol=1e-9)

    def test_gradients_too_small_to_square_still_move_a_sample_by_eps(self):
        model = nn.Linear(6, 2)
        with torch.no_grad():
            model.weight.mul_(1e-30)  # squares of 1e-30 are 0 in float32
        images = torch.zeros(3, 6)
        moved = fgsm(model, images, torch.tensor([0, 1, 0]), eps=0.5, norm="l2")
        torch.testing.assert_close(moved.norm(dim=1), torch.full((3,), 0.5))


class TestBall:
    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("eps", [0.05, 0.5, 10.0])
    def test_attacks_stay_in_the_ball_and_the_range(self, network, norm, eps):
        images, labels = batch()
        images[0] = 1.0  # a corner of the range
        for attack in (fgsm, pgd):
            adversarial = attack(network, images, labels, eps=eps, norm=norm, generator=generator())
            assert distances(adversarial, images, norm).max() <= eps * (1 + 1e-12)
            assert adversarial.min() >= -1
            assert adversarial.max() <= 1

    @pytest.mark.parametrize("norm", NORMS)
    def test_projection_leaves_what_is_inside_and_is_idempotent(self, norm):
        images, _ = batch()
        ball, inside = Ball(norm, 0.1), images + 0.001
        torch.testing.assert_close(ball.project(inside, images), inside, rtol=0, atol=1e-15)
        far = ball.project(images + torch.randn_like(images), images)
        torch.testing.assert_close(ball.project(far, images), far, rtol=0, atol=1e-15)

    @pytest.mark.parametrize("norm", NORMS)
    def test_random_starts_fill_the_ball(self, norm):
        start = Ball(norm, 0.1).start(torch.zeros(2000, 3), generator())
        lengths = distances(start, torch.zeros(2000, 3), norm)
        assert lengths.max() <= 0.1 * (1 + 1e-6)
        # Uniform in 3 dimensions: half of the volume lies beyond 0.1 * 2^(-1/3); 2000 draws, 5 sigma.
        assert (lengths > 0.1 * 0.5 ** (1 / 3)).float().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / 2000**0.5)

    def test_eps_of_unit_pixels_doubles_on_our_range(self):
        assert eps_from_pixels(8 / 255) == pytest.approx(16 / 255)
        assert eps_from_pixels(8 / 255, low=0, high=1) == pytest.approx(8 / 255)

    @pytest.mark.parametrize("attack", [fgsm, pgd])
    def test_eps_zero_gives_the_images(self, network, attack):
        images, labels = batch()
        result = attack(network, images, labels, eps=0)
        assert torch.equal(result, images)
        assert result is not images


class TestNothingElseChanges:
    @pytest.mark.parametrize("nodes", ["chebyshev", "random"])
    def test_the_defence_answers_as_if_there_had_been_no_attack(self, network, nodes):
        images, labels = batch()
        attacked = RandomizedCodedInference(network, seed=3, nodes=nodes)
        twin = RandomizedCodedInference(copy.deepcopy(network), seed=3, nodes=nodes)
        before = [attacked(images), twin(images)]
        pgd(attacked, images, labels, eps=0.1, steps=3, eot=2, generator=generator(7))
        pgd(fresh(attacked, generator(8)), images, labels, eps=0.1, steps=3)
        assert torch.equal(*before)
        assert torch.equal(attacked(images), twin(images))

    def test_the_attacker_does_not_see_the_defences_next_permutations(self, network, monkeypatch):
        images, labels = batch()
        defence, recorder = RandomizedCodedInference(network, seed=3), Recorder(monkeypatch)
        pgd(defence, images, labels, eps=0.1, steps=5, generator=generator(9))
        seen = set(recorder.take())
        for _ in range(5):
            defence(images)
        assert len(seen) == 5
        assert not seen & set(recorder.take())

    def test_global_randomness_gradients_and_modes_are_as_before(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 5))
        model.double().train()
        model[2].eval()  # a frozen batch norm in a network that trains
        images, labels = batch()
        modes = [module.training for module in model.modules()]
        state, values = torch.get_rng_state(), copy.deepcopy(model.state_dict())
        pgd(model, images, labels, eps=0.1, steps=3, restarts=2)
        fgsm(model, images, labels, eps=0.1)
        assert torch.equal(torch.get_rng_state(), state)
        assert [module.training for module in model.modules()] == modes
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
        assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
        assert not images.requires_grad

    def test_a_forward_with_global_randomness_is_attacked_on_other_draws_than_it_serves(self, network):
        images, labels = batch()
        noise = []

        def noisy(x):
            noise.append(torch.randn(()).item())
            return network(x + 0.1 * noise[-1])

        torch.manual_seed(1)
        pgd(noisy, images, labels, eps=0.1, steps=4)
        attacked, noise[:] = set(noise), []
        for _ in range(4):
            noisy(images)
        assert not attacked & set(noise)
        torch.manual_seed(1)
        assert noise[0] == torch.randn(()).item()

    def test_the_generator_decides_everything(self, network):
        images, labels = batch()
        results = []
        for global_seed, seed in ((1, 5), (2, 5), (1, 6)):
            torch.manual_seed(global_seed)
            results.append(pgd(network, images, labels, eps=0.1, steps=2, generator=generator(seed)))
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])

    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    def test_attacks_run_where_gradients_are_off(self, network, context):
        images, labels = batch()
        expected = pgd(network, images, labels, eps=0.1, steps=2)
        with context():
            inside = images.clone()
            result = pgd(network, inside, labels.clone(), eps=0.1, steps=2)
        assert torch.equal(result, expected)


class TestEot:
    def test_the_gradient_is_the_mean_of_the_gradients_per_draw(self, network):
        images, labels = batch()
        defence = RandomizedCodedInference(network)
        whole = Objective(fresh(defence, generator(4)), labels, eot=5).gradient(images)
        one_by_one = fresh(defence, generator(4))
        single = [Objective(one_by_one, labels).gradient(images) for _ in range(5)]
        torch.testing.assert_close(whole, torch.stack(single).mean(0), rtol=1e-12, atol=1e-15)
        assert not torch.equal(single[0], single[1])

    @pytest.mark.parametrize("votes", [1, 2])
    def test_the_gradient_through_rci_is_that_of_finite_differences(self, network, votes):
        images, labels = batch(4)
        defence = RandomizedCodedInference(network, votes=votes)

        def loss(x):
            logits = fresh(defence, generator(4))(x)
            return nn.functional.cross_entropy(logits, labels, reduction="sum").item()

        gradient = Objective(fresh(defence, generator(4)), labels).gradient(images)
        h = 1e-6  # double precision: truncation h^2, rounding 1e-16 / h, both below 1e-9
        for index in [(0, 0, 1, 2), (1, 0, 3, 3), (3, 0, 0, 0)]:
            step = torch.zeros_like(images)
            step[index] = h
            difference = (loss(images + step) - loss(images - step)) / (2 * h)
            assert gradient[index].item() == pytest.approx(difference, rel=1e-5, abs=1e-8)

    def test_neighbours_losses_count_in_each_samples_gradient(self, network):
        """RCI mixes the batch: the joint gradient is not the gradient of a sample's own loss."""
        images, labels = batch()
        defence = RandomizedCodedInference(network)
        joint = Objective(fresh(defence, generator(4)), labels).gradient(images)
        own = torch.zeros_like(images)
        for k in range(len(images)):
            x = images.clone().requires_grad_()
            logits = fresh(defence, generator(4))(x)
            loss = nn.functional.cross_entropy(logits[k : k + 1], labels[k : k + 1])
            own[k] = torch.autograd.grad(loss, x)[0][k]
        assert (joint - own).norm() > 0.01 * own.norm()

    @pytest.mark.parametrize("count", [1, 2, 6, 7])
    @pytest.mark.parametrize("norm", NORMS)
    def test_every_batch_size_runs_whole_and_in_order(self, network, count, norm):
        images, labels = batch(count)
        defence, sizes = RandomizedCodedInference(network, reference=batch(5, seed=1)[0]), []
        network.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
        adversarial = pgd(defence, images, labels, eps=0.1, steps=2, restarts=2, norm=norm, eot=2)
        assert adversarial.shape == images.shape
        assert distances(adversarial, images, norm).max() <= 0.1 * (1 + 1e-12)
        assert set(sizes) == {round(1.5 * max(count, 6))}
