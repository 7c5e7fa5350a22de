import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cs_gan.errors import BatchError, BlockError
from cs_gan.randomness import stream
from cs_gan.supervised import cross_entropy, jacobian_penalty, logit_norm_penalty
from models import build_classifier
from tests.core.helpers import Function
from tests.gan.networks import assert_same
from tests.supervised.networks import CLASSES, batch, mlp

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64 sums of some hundred terms of O(1)


def test_smoothed_cross_entropy_is_that_of_the_smoothed_distribution():
    logits, labels = torch.randn(5, CLASSES, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2])
    targets = 0.9 * F.one_hot(labels, CLASSES).double() + 0.1 / CLASSES
    by_hand = -(targets * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(cross_entropy(logits, labels, 0.1), by_hand, **EXACT)
    soft = F.one_hot(labels, CLASSES).float()
    torch.testing.assert_close(cross_entropy(logits, soft, 0.1), by_hand, **EXACT)


def test_losses_of_bf16_logits_are_float32():
    logits = torch.randn(5, CLASSES).bfloat16()
    assert cross_entropy(logits, torch.zeros(5, dtype=torch.int64)).dtype == torch.float32
    torch.testing.assert_close(logit_norm_penalty(logits), logits.float().square().sum() / 20)


def jacobians(model, images):
    """(K, C, 48) in float64, by forward-over-samples autodiff."""
    return torch.stack([torch.func.jacrev(lambda x: model(x[None])[0])(x).flatten(1) for x in images])


class TestJacobianPenalty:
    def test_is_half_the_squared_frobenius_norm_in_expectation(self):
        model, (images, _) = mlp(), batch(8)
        draw = stream("projections")
        estimates = torch.stack([jacobian_penalty(model, images, draw).detach() for _ in range(1000)])
        half_square = jacobians(model, images).square().sum((1, 2)).mean() / 2
        # Four standard errors of the mean of 1000 draws; they must also be small, or the test says nothing.
        error = estimates.std() / 1000**0.5
        assert error < 0.02 * half_square
        assert (estimates.mean() - half_square).abs() < 4 * error

    def test_equals_its_projections_of_the_full_jacobian_and_so_does_its_gradient(self):
        model, (images, _) = mlp(), batch(8)
        v = F.normalize(torch.randn(8, CLASSES, generator=stream(1)), dim=1).double()
        rows = torch.einsum("kc,kcf->kf", v, jacobians(model, images))
        by_hand = CLASSES / 2 * rows.square().sum(1).mean()
        penalty, weights = jacobian_penalty(model, images, stream(1)), [model[1].weight, model[3].weight]
        torch.testing.assert_close(penalty, by_hand, **EXACT)
        assert_same(torch.autograd.grad(penalty, weights), torch.autograd.grad(by_hand, weights), **EXACT)

    def test_stays_in_float32_under_autocast(self):
        model, (images, _) = mlp(torch.float32), batch(8, torch.float32)
        alone = jacobian_penalty(model, images, stream(1))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(jacobian_penalty(model, images, stream(1)), alone)

    def test_has_a_gradient_through_attention(self):
        """Fused attention has no second derivative."""
        model, (images, _) = build_classifier("vit32", CLASSES, width=8, image_size=4).double(), batch(4)
        nn.init.normal_(model.head.linear.head.weight)  # which starts at zero
        jacobian_penalty(model, images, stream(1)).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        assert model.blocks[0].self_attention.in_proj_weight.grad.abs().max() > 0

    def test_leaves_batch_norms_statistics_and_the_images_alone(self):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, CLASSES))
        images, _ = batch(8, torch.float32)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        jacobian_penalty(model, images, stream(1)).backward()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert images.grad is None
        assert not images.requires_grad

    @pytest.mark.parametrize("change", [lambda p: p.data.mul_(0.9), lambda p: p.detach().mul_(0.9)])
    def test_leaves_frozen_parameters_that_the_model_changes_alone(self, change):
        def call(x):
            change(model.centre)
            return model.linear(x - model.centre).tanh()

        model = Function(call)
        model.linear, model.centre = nn.Linear(6, 4), nn.Parameter(torch.ones(6), requires_grad=False)
        for _ in range(2):
            jacobian_penalty(model, torch.randn(8, 6), torch.Generator()).backward()
            assert torch.equal(model.centre, torch.ones(6))

    def test_refuses_a_model_that_changes_trained_parameters(self):
        def call(x):
            model.linear.weight.data.mul_(0.9)
            return model.linear(x)

        model = Function(call)
        model.linear = nn.Linear(6, 4)
        with pytest.raises(BlockError, match=r"the model changes its parameters \['linear.weight'\].*jacobian_penalty"):
            jacobian_penalty(model, torch.randn(8, 6), torch.Generator())

    def test_refuses_integer_images_and_other_outputs(self):
        with pytest.raises(BatchError, match=r"int64.*no derivative"):
            jacobian_penalty(mlp(), torch.zeros(4, 12, dtype=torch.int64), stream(1))
        with pytest.raises(BatchError, match=r"\(4, 3, 2, 2\).*must be \(K, C\)"):
            jacobian_penalty(nn.Identity(), torch.zeros(4, 3, 2, 2), stream(1))


@pytest.mark.parametrize("loss", [lambda x: cross_entropy(x, torch.tensor([0, 1, 2, 0])), logit_norm_penalty])
def test_autocast_around_a_loss_and_its_backward_changes_nothing(loss):
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(4, 3, dtype=dtype, requires_grad=True)
        expected = loss(x)
        (gradient,) = torch.autograd.grad(expected, x)
        with torch.autocast("cpu", torch.bfloat16):
            found = loss(x)
            assert torch.equal(torch.autograd.grad(found, x)[0], gradient)
        assert torch.equal(found, expected)
        assert found.dtype == dtype
