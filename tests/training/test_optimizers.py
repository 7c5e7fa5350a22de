import pytest
import torch

from cs_gan.training import device_options, restore, set_learning_rate, without_dynamo


def test_a_cpu_keeps_a_number():
    assert device_options(torch.device("cpu"), 0.1) == {"lr": 0.1}


@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1)])
def test_the_learning_rate_is_what_the_next_step_uses(rate):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=rate)
    given = optimizer.param_groups[0]["lr"]
    set_learning_rate(optimizer, 0.5)
    weight.grad = torch.ones(1)
    optimizer.step()
    assert weight.item() == -0.5
    if isinstance(rate, torch.Tensor):
        assert optimizer.param_groups[0]["lr"] is given


def test_a_restored_optimiser_keeps_its_tensor_and_its_kernels():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight], lr=torch.tensor(0.1), fused=True)
    rate = optimizer.param_groups[0]["lr"]
    plain = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.25)
    state = {"optimizers": {"net": plain.state_dict()["param_groups"]}}
    restore({}, state, {}, {"net": optimizer})
    (group,) = optimizer.param_groups
    assert group["lr"] is rate
    assert rate == 0.25
    assert group["fused"] is True


@pytest.mark.parametrize(
    ("kind", "options"),
    [(torch.optim.Adam, {}), (torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.9, "nesterov": True})],
)
def test_an_optimiser_without_dynamo_has_the_same_bits_and_state(kind, options):
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 50)) for _ in range(2)]
    pair = [
        make([weight], lr=0.1, **options) for make, weight in zip((kind, without_dynamo(kind)), weights, strict=True)
    ]
    for _ in range(5):
        for optimizer, weight in zip(pair, weights, strict=True):
            optimizer.zero_grad()
            weight.pow(3).sum().backward()
            optimizer.step()
    assert torch.equal(*weights)
    assert str(pair[0].state_dict()) == str(pair[1].state_dict())
    pair[1].load_state_dict(pair[0].state_dict())
    assert pair[1].defaults == pair[0].defaults
