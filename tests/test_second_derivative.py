"""Attention in what is differentiated twice: the math kernel there, the fast one everywhere else."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from cs_gan import CodedSmoothing
from cs_gan.gan import (
    Consistency,
    ZeroCentred,
    critic_step,
    fast_double_backward,
    generator_step,
    gradient_penalty,
    r1_penalty,
)

FLASH = "derivative for aten::_scaled_dot_product_flash_attention_for_cpu_backward is not implemented"
# Sums of some hundred float64 terms of order 1, in another order.
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


class Transformer(nn.Module):
    """(B, 8, 3, 3) -> (B,): attention among the nine pixels."""

    def __init__(self, dropout):
        super().__init__()
        self.body = nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.body(x.flatten(2).transpose(1, 2)).mean(1)).squeeze(1)


class Direct(nn.Module):
    """(B, 8, 3, 3) -> (B,): scaled_dot_product_attention called as a function, causal or not."""

    def __init__(self, causal=False):
        super().__init__()
        self.project, self.head, self.causal = nn.Linear(8, 24), nn.Linear(8, 1), causal

    def forward(self, x):
        q, k, v = self.project(x.flatten(2).transpose(1, 2)).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.head(attended.transpose(1, 2).flatten(2).mean(1)).squeeze(1)


CRITICS = {
    "dropout 0": lambda: Transformer(0.0),
    "eval mode": lambda: Transformer(0.1).eval(),
    "a function": Direct,
    "causal": lambda: Direct(causal=True),
}


def batch():
    return *torch.randn(2, 4, 8, 3, 3, dtype=torch.float64), torch.rand(4, dtype=torch.float64)


def by_hand(critic, x):
    (slope,) = torch.autograd.grad(critic(x.requires_grad_()).sum(), x, create_graph=True)
    return slope.flatten(1)


@pytest.mark.parametrize("name", CRITICS)
class TestPenalties:
    def test_without_us_the_fast_kernel_raises(self, name):
        """Else these tests would show nothing."""
        with pytest.raises(RuntimeError, match=FLASH):
            by_hand(CRITICS[name]().double(), batch()[0]).square().sum().backward()

    def test_they_equal_those_by_hand_on_the_math_kernel(self, name):
        critic, (real, fake, alpha) = CRITICS[name]().double(), batch()
        parameters = list(critic.parameters())
        with sdpa_kernel(SDPBackend.MATH):
            slopes = by_hand(critic, torch.lerp(fake, real, alpha.view(-1, 1, 1, 1)))
            expected = (slopes.norm(dim=1) - 1).square().mean(), by_hand(critic, real).square().sum(1).mean()
        for mine, other in zip(
            (gradient_penalty(critic, real, fake, alpha), r1_penalty(critic, real)), expected, strict=True
        ):
            torch.testing.assert_close(mine, other, **CLOSE)
            grads = [torch.autograd.grad(x, parameters, allow_unused=True) for x in (mine, other)]
            for one, two in zip(*grads, strict=True):
                torch.testing.assert_close(*(torch.zeros(()) if x is None else x for x in (one, two)), **CLOSE)

    def test_a_penalty_of_ones_own(self, name):
        critic, (real, *_) = CRITICS[name]().double(), batch()
        real.requires_grad_()
        with fast_double_backward():
            scores = critic(real)
        (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
        slope.square().sum().backward()
        torch.testing.assert_close(slope.flatten(1), by_hand(critic, real), **CLOSE)

    def test_a_whole_step(self, name):
        critic, (real, fake, alpha) = CRITICS[name]().double(), batch()
        coded = CodedSmoothing(critic, ["head"], 1.5)
        terms = [ZeroCentred(1.0), ZeroCentred(1.0, "fake"), Consistency(1.0, lambda x: x.flip(3))]
        losses = critic_step(critic, torch.optim.Adam(critic.parameters()), real, fake, alpha, terms=terms, coded=coded)
        assert all(value.isfinite() for value in losses.values())
        generator = nn.Sequential(nn.Linear(5, 72), nn.Unflatten(1, (8, 3, 3))).double()
        latents = torch.randn(4, 5, dtype=torch.float64)
        generator_step(generator, critic, torch.optim.Adam(generator.parameters()), latents)


def test_only_forwards_for_second_derivatives_give_up_the_fast_kernel():
    critic, (real, fake, alpha) = Direct().double(), batch()
    kernels = []
    critic.register_forward_hook(lambda _module, _args, y: kernels.append(used(y.grad_fn)))

    def used(node):
        names, todo = set(), [node]
        while todo:
            names.add(type(todo[-1]).__name__)
            todo += [below for below, _ in todo.pop().next_functions if below is not None]
        return "fast" if any("FlashAttention" in name for name in names) else "math"

    coded = CodedSmoothing(critic, ["project"], 1.5)
    critic_step(critic, torch.optim.Adam(critic.parameters()), real, fake, alpha, coded=coded)
    assert kernels == ["fast", "fast", "math"]  # real, fake, between


def test_the_users_choice_of_kernels_comes_back():
    real, fake, alpha = batch()
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        gradient_penalty(Direct().double(), real, fake, alpha)
        assert not torch.backends.cuda.math_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()
        with pytest.raises(RuntimeError, match="shape"):
            r1_penalty(Direct().double(), real[:, :3])  # an error in the forward
        assert not torch.backends.cuda.math_sdp_enabled()
    assert torch.backends.cuda.math_sdp_enabled()


def test_attention_in_a_checkpoint_needs_the_kernel_around_the_whole_step():
    """As the docstring says: the recomputation chooses a kernel again, in the backward."""
    critic, (real, *_) = Transformer(0.0).double(), batch()
    expected = r1_penalty(critic, real)

    class Checkpointed(nn.Module):
        def forward(self, x):
            x = checkpoint(critic.body, x.flatten(2).transpose(1, 2), use_reentrant=False)
            return critic.head(x.mean(1)).squeeze(1)

    with sdpa_kernel(SDPBackend.MATH):
        penalty = r1_penalty(Checkpointed(), real)
        penalty.backward()
    torch.testing.assert_close(penalty, expected, **CLOSE)
