import pytest
import torch

from cs_gan.training import device_options, restore, set_learning_rate


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
