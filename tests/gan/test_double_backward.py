"""fast_double_backward: the same derivatives as torch's, of any order, from fewer and better operations."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from cs_gan.gan import double_backward, fast_double_backward, gradient_penalty
from models import build_gan

# (function, its arguments beside input, weight and bias, shape of the input, of the weight, channels of the output)
CONVOLUTIONS = {
    "1d": (F.conv1d, {"padding": 1}, (2, 3, 6), (4, 3, 3), 4),
    "2d": (F.conv2d, {"padding": 1}, (2, 2, 4, 3), (3, 2, 3, 3), 3),
    "strided": (F.conv2d, {"stride": 2, "padding": 1}, (2, 2, 6, 5), (3, 2, 4, 3), 3),
    "dilated": (F.conv2d, {"dilation": (2, 1), "padding": (2, 0)}, (2, 2, 6, 4), (3, 2, 3, 2), 3),
    "grouped": (F.conv2d, {"groups": 2, "padding": 1}, (2, 4, 3, 2), (6, 2, 3, 2), 6),
    "same": (F.conv2d, {"padding": "same"}, (2, 2, 4, 4), (3, 2, 3, 3), 3),
    "valid": (F.conv2d, {"padding": "valid"}, (2, 2, 4, 4), (3, 2, 3, 3), 3),
    "asymmetric": (F.conv2d, {"padding": "same"}, (2, 2, 4, 4), (3, 2, 2, 2), 3),  # torch's own
    "3d": (F.conv3d, {"stride": (1, 2, 1)}, (1, 2, 3, 4, 3), (2, 2, 2, 2, 2), 2),
    "transposed": (F.conv_transpose2d, {"stride": 2, "padding": 1}, (2, 2, 3, 2), (2, 3, 4, 3), 3),
    "transposed, output padding": (
        F.conv_transpose2d,
        {"stride": 2, "output_padding": 1, "dilation": 2},
        (1, 2, 3, 2),
        (2, 2, 2, 2),
        2,
    ),
    "transposed, grouped": (F.conv_transpose2d, {"groups": 2, "stride": 2}, (2, 4, 2, 2), (4, 3, 3, 2), 6),
    "transposed 1d": (F.conv_transpose1d, {"stride": 3}, (2, 3, 4), (3, 2, 3), 2),
}


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch):
    monkeypatch.setattr(double_backward, "CPU_CROSSOVER", 0)


def doubles(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("name", "bias"), [*((name, True) for name in CONVOLUTIONS), ("2d", False), ("transposed", False)]
)
def test_convolutions_have_right_derivatives_of_both_orders(name, bias):
    function, options, shape, weight_shape, channels = CONVOLUTIONS[name]
    given = [doubles(*shape), doubles(*weight_shape), *([doubles(channels)] if bias else [])]

    def closed(*tensors: torch.Tensor) -> torch.Tensor:
        with fast_double_backward():
            return function(*tensors, **options)

    assert torch.equal(closed(*given), function(*given, **options))
    assert torch.autograd.gradcheck(closed, given)
    assert torch.autograd.gradgradcheck(closed, given)


# torch's own third derivative raises for an output padding.
@pytest.mark.parametrize("name", [name for name in CONVOLUTIONS if "output padding" not in name])
def test_third_derivatives_are_torchs(name):
    function, options, shape, weight_shape, _ = CONVOLUTIONS[name]
    x, weight = doubles(*shape), doubles(*weight_shape)

    def third() -> tuple[torch.Tensor, ...]:
        y = function(x, weight, **options).pow(3).sum()
        (first,) = torch.autograd.grad(y, x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), weight, create_graph=True)
        return torch.autograd.grad(second.square().sum(), (x, weight))

    expected = third()
    with fast_double_backward():
        found = third()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)  # float64 sums of some hundred terms


@pytest.mark.parametrize(
    "function",
    [
        F.relu,
        torch.relu,
        torch.Tensor.relu,
        nn.ReLU(),
        nn.ReLU(inplace=True),
        F.leaky_relu,
        nn.LeakyReLU(0.2),
        nn.LeakyReLU(0.2, inplace=True),
        nn.LeakyReLU(1.5),  # torch's own
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.avg_pool2d(x, (2, 3), stride=1, padding=1, count_include_pad=False),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    ],
)
def test_activations_and_pooling_have_right_derivatives_of_both_orders(function):
    x = doubles(2, 3, 5, 5)

    def closed(x: torch.Tensor) -> torch.Tensor:
        with fast_double_backward():
            return function(x * 1.0)

    assert torch.equal(closed(x), function(x * 1.0))
    assert torch.autograd.gradcheck(closed, [x])
    assert torch.autograd.gradgradcheck(closed, [x])


def penalty_gradients(critic: nn.Module, *given: torch.Tensor) -> list[torch.Tensor]:
    critic.zero_grad()
    gradient_penalty(critic, *given).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in critic.parameters()]


def batch(critic: nn.Module, size: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    real, fake = (torch.randn(size, *critic.image_shape) for _ in range(2))
    return real.to(memory_format=torch.channels_last), fake.to(memory_format=torch.channels_last), torch.rand(size)


@pytest.mark.parametrize("name", ["paper32", "paper64", "dcgan32"])
def test_the_gradient_penalty_of_our_critics_is_torchs(name, monkeypatch):
    critic = build_gan(name, width=8)[1].double().to(memory_format=torch.channels_last)
    given = [x.double() for x in batch(critic)]
    found = penalty_gradients(critic, *given)
    monkeypatch.setattr(double_backward, "_CLOSED", {})
    for one, other in zip(found, penalty_gradients(critic, *given), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


class Operations(TorchDispatchMode):
    """Counts what is dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_nothing_runs_back_through_the_forward_graph_of_a_piecewise_linear_critic(monkeypatch):
    critic = build_gan("paper32", width=8)[1]
    given = batch(critic)
    penalty, (operations,) = gradient_penalty(critic, *given), [Operations()]
    with operations:
        penalty.backward()
    convolutions = sum(isinstance(module, nn.Conv2d) for module in critic.modules())
    # For each: its weight's gradient, and the convolution that the gradient's derivative is. None of the input
    # gradients and weight gradients that zeros would be sent through.
    assert operations.counts["convolution_backward"] == convolutions
    assert operations.counts["convolution"] == convolutions
    monkeypatch.setattr(double_backward, "_CLOSED", {})
    penalty = gradient_penalty(critic, *given)
    with Operations() as torchs:
        penalty.backward()
    assert torchs.counts["convolution_backward"] + torchs.counts["convolution"] > 2 * convolutions


def test_the_model_is_untouched_and_first_derivatives_too():
    critic = build_gan("dcgan32", width=8)[1]
    real, *_ = batch(critic)
    state, hooks = {k: v.clone() for k, v in critic.state_dict().items()}, dict(critic.blocks[0][0]._forward_hooks)
    plain = critic(real)
    plain.sum().backward()
    expected = [p.grad.clone() for p in critic.parameters()]
    critic.zero_grad()
    with fast_double_backward():
        closed = critic(real.requires_grad_())
    closed.sum().backward()
    assert torch.equal(closed, plain)
    for parameter, value in zip(critic.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, value)
    assert state.keys() == critic.state_dict().keys()
    assert dict(critic.blocks[0][0]._forward_hooks) == hooks


def test_outputs_and_gradients_stay_channels_last():
    conv = nn.Conv2d(3, 4, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    with fast_double_backward():
        y = F.avg_pool2d(F.leaky_relu(conv(x), 0.2), 2)
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    for tensor in (y, gradient):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_autocast_computes_in_its_type_and_keeps_the_weights_gradient_in_theirs():
    conv = nn.Conv2d(3, 4, 3)
    x = torch.randn(2, 3, 6, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), fast_double_backward():
        y = conv(x)
    with torch.autocast("cpu", torch.bfloat16):
        expected = conv(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected)
    (gradient,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert gradient.dtype == torch.float32
    assert conv.weight.grad.dtype == torch.float32
    assert conv.weight.grad.isfinite().all()


def calls_replaced(function, monkeypatch) -> int:
    """How many convolutions became ours."""
    calls = []
    apply = double_backward.Convolution.apply
    monkeypatch.setattr(double_backward.Convolution, "apply", lambda *args: calls.append(1) or apply(*args))
    with fast_double_backward():
        function()
    return len(calls)


def forward_mode(conv: nn.Module, x: torch.Tensor) -> None:
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        assert torch.autograd.forward_ad.unpack_dual(conv(dual)).tangent is not None


@pytest.mark.parametrize(
    ("call", "count"),
    [
        pytest.param(lambda conv, x: conv(x), 1, id="a batch"),
        pytest.param(lambda conv, x: conv(x[0]), 0, id="no batch axis"),
        pytest.param(lambda conv, x: conv(x.detach()), 0, id="no second derivative to come"),
        pytest.param(torch.no_grad()(lambda conv, x: conv(x)), 0, id="no gradient"),
        pytest.param(lambda conv, x: torch.func.vmap(conv)(x[:, None]), 0, id="vmap"),
        pytest.param(lambda conv, x: torch.func.grad(lambda x: conv(x).sum())(x), 0, id="torch.func.grad"),
        pytest.param(forward_mode, 0, id="forward mode"),
    ],
)
def test_only_what_has_a_case_is_replaced(monkeypatch, call, count):
    conv, x = nn.Conv2d(2, 2, 3), torch.randn(3, 2, 5, 5, requires_grad=True)
    assert calls_replaced(lambda: call(conv, x), monkeypatch) == count


def test_what_is_too_small_to_gain_is_not_replaced(monkeypatch):
    conv, x = nn.Conv2d(2, 2, 3), torch.randn(3, 2, 5, 5, requires_grad=True)
    monkeypatch.setattr(double_backward, "CPU_CROSSOVER", 2**24)
    assert calls_replaced(lambda: conv(x), monkeypatch) == 0


def test_a_checkpoint_inside_the_critic_still_works():
    critic = build_gan("dcgan32", width=8)[1]
    given = batch(critic)
    expected = penalty_gradients(critic, *given)

    class Checkpointed(nn.Module):
        def forward(self, x):
            for block in critic.blocks:
                x = checkpoint(block, x, use_reentrant=False)
            return critic.head(x).squeeze(1)

    critic.zero_grad()
    gradient_penalty(Checkpointed(), *given).backward()
    for parameter, value in zip(critic.parameters(), expected, strict=True):
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, value, rtol=1e-4, atol=1e-6)  # float32, other kernels
