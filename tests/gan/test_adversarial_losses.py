import pytest
import torch
from torch import nn

from cs_gan.gan import gradient_penalty
from tests.core.helpers import Function
from tests.gan.networks import TinyCritic, assert_same, batches, naive_gradient_penalty

# float32 keeps 6e-8 relative; a sum over a dozen features and as many samples costs about ten times that.
CLOSE = {"rtol": 2e-6, "atol": 2e-6}


class TestGradientPenalty:
    @pytest.mark.parametrize("norm", [0.25, 1.0, 3.0])
    @pytest.mark.parametrize("shape", [(5,), (3, 4, 4)])
    def test_of_a_linear_critic_has_a_closed_form_with_its_gradient(self, norm, shape):
        w = torch.randn(shape)
        w = (w * norm / w.norm()).requires_grad_()
        real, fake = torch.randn(2, 6, *shape)
        penalty = gradient_penalty(Function(lambda x: (x * w).flatten(1).sum(1)), real, fake, torch.rand(6))
        penalty.backward()
        torch.testing.assert_close(penalty, torch.tensor((norm - 1) ** 2), **CLOSE)
        torch.testing.assert_close(w.grad, 2 * (norm - 1) * w.detach() / norm, **CLOSE)

    def test_equals_a_loop_over_samples_in_value_and_in_every_parameter_gradient(self):
        critic = TinyCritic()
        batch = batches(7)
        penalty, expected = gradient_penalty(critic, *batch), naive_gradient_penalty(critic, *batch)
        torch.testing.assert_close(penalty, expected, **CLOSE)
        # The last bias shifts all scores alike and has no gradient at all.
        parameters = [p for name, p in critic.named_parameters() if name != "head.bias"]
        assert_same(torch.autograd.grad(penalty, parameters), torch.autograd.grad(expected, parameters), **CLOSE)

    def test_of_a_critic_that_is_flat_has_finite_gradients(self):
        critic = TinyCritic()
        nn.init.zeros_(critic.head.weight)
        penalty = gradient_penalty(critic, *batches(4))
        penalty.backward()
        assert penalty.item() == 1.0
        assert all(p.grad is None or p.grad.isfinite().all() for p in critic.parameters())

    @pytest.mark.parametrize(
        ("given", "computed"),
        [
            (torch.bfloat16, torch.float32),
            (torch.float16, torch.float32),
            (torch.float32, torch.float32),
            (torch.float64, torch.float64),
        ],
    )
    def test_is_computed_in_float32_or_better_whatever_the_batch_is(self, given, computed):
        real, fake, alpha = (x.to(given) for x in batches(4))
        assert gradient_penalty(TinyCritic().to(computed), real, fake, alpha).dtype == computed

    def test_stays_in_float32_under_autocast_to_the_bit(self):
        critic, batch = TinyCritic(), batches(4)
        plain, seen = gradient_penalty(critic, *batch), []
        critic.body[1].register_forward_hook(lambda _module, _args, y: seen.append(y.dtype))
        with torch.autocast("cpu", torch.bfloat16):
            inside = gradient_penalty(critic, *batch)
        assert seen == [torch.float32]
        assert_same([inside], [plain])

    def test_lets_no_gradient_into_the_images(self):
        real, fake, alpha = batches(4)
        real.requires_grad_(), fake.requires_grad_()
        gradient_penalty(TinyCritic(), real, fake, alpha).backward()
        assert real.grad is None
        assert fake.grad is None

    @pytest.mark.parametrize(
        ("real", "fake", "alpha"),
        [
            ((4, 3, 2, 2), (5, 3, 2, 2), (4,)),
            ((4, 3, 2, 2), (4, 1, 2, 2), (4,)),
            ((4, 3, 2, 2), (4, 3, 2, 2), (1,)),
            ((4, 3, 2, 2), (4, 3, 2, 2), ()),
            ((4, 3, 2, 2), (4, 3, 2, 2), (4, 1, 1, 1)),
        ],
    )
    def test_refuses_shapes_that_broadcasting_would_hide(self, real, fake, alpha):
        with pytest.raises(ValueError, match="gradient_penalty got real") as error:
            gradient_penalty(TinyCritic(), torch.zeros(real), torch.zeros(fake), torch.zeros(alpha))
        assert all(str(shape) in str(error.value) for shape in (real, fake, alpha))
