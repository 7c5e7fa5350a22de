"""Whatever torch's own operations allow works inside fast_double_backward too: in place, odd arguments, batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cs_gan.gan import critic_step, double_backward, fast_double_backward, gradient_penalty, r1_penalty

# float64 sums of some hundred terms of order 1, in another order
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch):
    monkeypatch.setattr(double_backward, "CPU_CROSSOVER", 0)


def added(y):
    y += 1
    return y


def zeroed(y):
    y[:, 0] = 0
    return y


def through_a_view(y):
    y.view(len(y), -1).mul_(2)
    return y


def data_negated(y):
    y.data.mul_(-1)  # unseen by autograd's version counter
    return y


IN_PLACE = {
    "mul_": lambda y: y.mul_(2),
    "+=": added,
    "clamp_": lambda y: y.clamp_(-1, 1),
    "relu_": F.relu_,
    "leaky_relu_": lambda y: F.leaky_relu(y, 0.2, inplace=True),
    "elu_": lambda y: F.elu(y, inplace=True),
    "dropout": lambda y: F.dropout(y, 0.5, training=True, inplace=True),
    "dropout in eval mode": lambda y: F.dropout(y, 0.5, training=False, inplace=True),
    "setitem": zeroed,
    "a view": through_a_view,
    "data": data_negated,
    "transpose_": lambda y: y.transpose_(2, 3),
    "nothing": lambda y: y,
}
BEFORE = {
    "leaky_relu": F.leaky_relu,
    "leaky_relu, slope 0": lambda x: F.leaky_relu(x, 0.0),
    "leaky_relu, slope 1": lambda x: F.leaky_relu(x, 1.0),
    "convolution": lambda x: x,
    "average pool": lambda x: F.avg_pool2d(x, 3, 1, 1),
}


class Critic(nn.Module):
    """(B, 2, 4, 4) -> (B,): a convolution, something, something in place, and again."""

    def __init__(self, before, in_place):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(48, 1)
        self.before, self.in_place = before, in_place

    def forward(self, x):
        y = self.in_place(self.before(self.first(x)))
        return self.head(self.in_place(self.before(self.second(y))).tanh().flatten(1)).squeeze(1)


def gradients(critic, penalty):
    torch.manual_seed(5)  # for dropout
    critic.zero_grad()
    penalty(critic).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in critic.parameters()]


def batches():
    return *torch.randn(2, 3, 2, 4, 4, dtype=torch.float64), torch.rand(3, dtype=torch.float64)


@pytest.mark.parametrize("in_place", IN_PLACE)
@pytest.mark.parametrize("before", BEFORE)
def test_what_torch_lets_be_overwritten_may_be(before, in_place, monkeypatch):
    critic = Critic(BEFORE[before], IN_PLACE[in_place]).double()
    real, fake, alpha = batches()
    penalties = [lambda critic: gradient_penalty(critic, real, fake, alpha), lambda critic: r1_penalty(critic, real)]
    found = [gradients(critic, penalty) for penalty in penalties]
    critic_step(critic, torch.optim.SGD(critic.parameters(), 0.0), real, fake, alpha)
    monkeypatch.setattr(double_backward, "_CLOSED", {})
    for mine, penalty in zip(found, penalties, strict=True):
        for one, other in zip(mine, gradients(critic, penalty), strict=True):
            torch.testing.assert_close(one, other, **CLOSE)


def test_relu_saves_its_output_as_torchs_does():
    """So torch refuses to overwrite it, with and without us."""
    critic = Critic(F.relu, lambda y: y.mul_(2)).double()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        critic(batches()[0]).sum().backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        r1_penalty(critic, batches()[0]).backward()


class Subclass(torch.Tensor):
    """A tensor of a kind of its own."""


W = (3, 2, 3, 3)
# name -> (call, shapes of its tensors)
CALLS = {
    "numpy stride": (lambda x, w: F.conv2d(x, w, stride=np.int64(2)), W),
    "tensor stride": (lambda x, w: F.conv2d(x, w, stride=torch.tensor(2)), W),
    "numpy padding": (lambda x, w: F.conv2d(x, w, padding=(np.int64(1), np.int64(0))), W),
    "keywords": (lambda x, w: torch.conv2d(input=x, weight=w), W),
    "'same' with a stride": (lambda x, w: F.conv2d(x, w, padding="same", stride=2), W),  # torch refuses
    "unknown padding": (lambda x, w: F.conv2d(x, w, padding="around"), W),  # torch refuses
    "no groups": (lambda x, w: F.conv2d(x, w, groups=0), W),  # torch refuses
    "no batch": (lambda x, w: F.conv2d(x[:0], w), W),
    "no channels": (lambda x, w: F.conv2d(x[:, :0], w[:, :0]), W),
    "weight of a subclass": (lambda x, w: F.conv2d(x, w.as_subclass(Subclass)), W),
    "input of a subclass": (lambda x, w: F.conv2d(x.as_subclass(Subclass), w), W),
    "channels_last": (lambda x, w: F.conv2d(x.contiguous(memory_format=torch.channels_last), w), W),
    "not contiguous": (lambda x, w: F.conv2d(x.transpose(2, 3)[..., ::2], w), W),
    "complex": (lambda x, w: torch.view_as_real(F.conv2d(x + 0j, w + 0j)), W),
    "pool, numpy kernel": (lambda x: F.avg_pool2d(x, np.int64(2)),),
    "pool, empty stride": (lambda x: F.avg_pool2d(x, 2, []),),
    "pool of one image": (lambda x: F.avg_pool2d(x[0], 2),),
    "pool of a subclass": (lambda x: F.avg_pool2d(x.as_subclass(Subclass), 2),),
    "pool, divisor 0": (lambda x: F.avg_pool2d(x, 2, divisor_override=0),),  # torch refuses
    "slope as a tensor": (lambda x: F.leaky_relu(x, torch.tensor(0.2)),),
    "slope of numpy": (lambda x: F.leaky_relu(x, np.float32(0.25)),),
    "slope below 0": (lambda x: F.leaky_relu(x, -0.5),),
    "a number": (lambda x: F.leaky_relu(x.sum()),),
    "relu of a subclass": (lambda x: F.relu(x.as_subclass(Subclass)),),
    "leaky ReLU of NaN": (lambda x: F.leaky_relu(x * torch.nan),),
}


def derivatives(function, given, context, batched):
    """The value, its gradient (for three vectors at once if ``batched``), and the gradient of that."""
    with context():
        y = function(*given)
    v = torch.randn(3, *y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(3))
    first = torch.autograd.grad(
        y.sin(), given, v if batched else v[0], create_graph=True, is_grads_batched=batched, allow_unused=True
    )
    squares = sum(x.square().sum() for x in first if x is not None)
    second = torch.autograd.grad(squares, given, allow_unused=True)
    shapes = [(3, *x.shape) if batched else x.shape for x in given] + [x.shape for x in given]
    pairs = zip((*first, *second), shapes, strict=True)
    return [y.detach(), *(torch.zeros(shape, dtype=given[0].dtype) if x is None else x for x, shape in pairs)]


def outcome(*how):
    try:
        return derivatives(*how)
    except (RuntimeError, TypeError, ValueError) as error:
        return type(error)


def plain():
    return torch.enable_grad()


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("name", CALLS)
def test_any_call_has_torchs_result_or_torchs_error(name, autocast, dtype, batched):
    function, *shapes = CALLS[name]
    given = [torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in ((2, 2, 6, 6), *shapes)]

    def called(*tensors):
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            return function(*tensors)

    expected, found = (outcome(called, given, context, batched) for context in (plain, fast_double_backward))
    if isinstance(expected, type):
        assert found is expected
        return
    # Sums of some hundred terms of order 1, in another order and in the type that it was computed in.
    eps = torch.finfo(autocast if autocast and dtype == torch.float32 and shapes else dtype).eps
    assert torch.equal(found[0].nan_to_num(7), expected[0].nan_to_num(7))
    for one, other in zip(found, expected, strict=True):
        assert (type(one), one.dtype, one.shape) == (type(other), other.dtype, other.shape)
        scale = float(other.detach().abs().nan_to_num().max()) if other.numel() else 1.0
        torch.testing.assert_close(one, other, rtol=0, atol=100 * eps * max(scale, 1), equal_nan=True)
