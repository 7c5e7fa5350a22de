import pytest
import torch
from torch import nn

from cs_gan import CodedSmoothing
from cs_gan.errors import BlockError
from cs_gan.gan import gradient_penalty
from cs_gan.randomness import stream
from cs_gan.supervised import jacobian_penalty
from tests.core.helpers import Function
from tests.gan.networks import TinyCritic, assert_same, batches

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, of what it compiles
CLOSE = {"rtol": 2e-6, "atol": 2e-6}  # float32


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()


def whole(critic, backend):
    return torch.compile(critic, backend=backend)


def inside(critic, backend):
    critic.body = torch.compile(critic.body, backend=backend)
    return critic


def in_place(critic, backend):
    critic.compile(backend=backend)
    return critic


def part_in_place(critic, backend):
    critic.body.compile(backend=backend)
    return critic


def function(critic, backend):
    return Function(torch.compile(lambda x: critic(x), backend=backend))


WAYS = [whole, inside, in_place, part_in_place, function]


@pytest.mark.parametrize("way", WAYS)
def test_a_critic_compiled_ahead_of_time_is_refused(way):
    with pytest.raises(BlockError, match=r'gradient_penalty got .*ahead of time.*backend="eager".*trace_autograd_ops'):
        gradient_penalty(way(TinyCritic(), "aot_eager"), *batches(4))


@pytest.mark.parametrize("way", WAYS)
def test_the_eager_backend_has_the_gradients_of_the_plain_critic(way):
    critic = TinyCritic()
    parameters, batch = list(critic.parameters())[:-1], batches(4)  # the last bias has no gradient
    expected = torch.autograd.grad(gradient_penalty(critic, *batch), parameters)
    assert_same(torch.autograd.grad(gradient_penalty(way(critic, "eager"), *batch), parameters), expected, **CLOSE)


def test_inside_one_compiled_region_nothing_is_refused():
    critic, batch = TinyCritic(), batches(4)
    expected = gradient_penalty(critic, *batch)
    inner = torch.compile(critic, backend="aot_eager")
    value = torch.compile(lambda *given: gradient_penalty(inner, *given), backend="eager")(*batch)
    torch.testing.assert_close(value, expected, **CLOSE)


def test_compiled_code_that_makes_a_weight_is_none_of_its_business():
    base = torch.randn(12, requires_grad=True)
    make = torch.compile(lambda w: w.sin(), backend="aot_eager")
    critic = Function(lambda x: x.flatten(1).tanh() @ make(base))
    gradient_penalty(critic, *batches(4)).backward()
    got, base.grad = base.grad, None
    gradient_penalty(Function(lambda x: x.flatten(1).tanh() @ base.sin()), *batches(4)).backward()
    torch.testing.assert_close(got, base.grad, **CLOSE)


def test_a_coded_block_compiled_ahead_of_time_is_refused():
    critic = inside(TinyCritic(), "aot_eager")
    coded = CodedSmoothing(critic, ["body"])
    with coded.observe(), pytest.raises(BlockError, match="ahead of time"):
        gradient_penalty(critic, *batches(4))


def test_the_jacobian_penalty_refuses_likewise():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))
    images = torch.randn(4, 3, 2, 2)
    expected = jacobian_penalty(model, images, stream(1))
    torch.testing.assert_close(jacobian_penalty(torch.compile(model, backend="eager"), images, stream(1)), expected)
    with pytest.raises(BlockError, match=r"jacobian_penalty got .*ahead of time"):
        jacobian_penalty(torch.compile(model, backend="aot_eager"), images, stream(1))
