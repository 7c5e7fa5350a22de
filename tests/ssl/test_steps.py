import copy

import pytest
import torch
from torch import nn

from cs_gan import CodedSmoothing, SplineCode
from cs_gan.errors import BatchError, ConfigError
from cs_gan.ssl import barlow_twins, nt_xent, ssl_step


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


@pytest.mark.parametrize("loss", [nt_xent, barlow_twins])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_a_step_is_the_one_written_out(loss, weight):
    model, views = network(), torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
    expected, code = copy.deepcopy(model), SplineCode(10, 15)
    out = expected(views)
    total = loss(out[:5], out[5:])
    if weight:
        total = total + weight * (code.decode(expected(code.encode(views))) - out).square().mean()
    total.backward()
    coded = CodedSmoothing(model, [""], 1.5, weight=weight) if weight else None
    losses = ssl_step(model, torch.optim.SGD(model.parameters(), 0.1), views, loss, coded=coded)
    assert losses.keys() == ({"loss", "coded"} if weight else {"loss"})
    torch.testing.assert_close(losses["loss"], loss(out[:5], out[5:]).detach())
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach() - 0.1 * theirs.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [2, 5])
def test_views_that_are_no_pairs_are_refused(count):
    model = network()
    with pytest.raises(BatchError, match="two views of at least two images"):
        ssl_step(model, torch.optim.SGD(model.parameters(), 0.1), torch.randn(count, 6), nt_xent)


@pytest.mark.parametrize(
    ("change", "given"), [(lambda y: (y, y), "a tuple"), (lambda y: {"z": y}, "a dict"), (lambda y: y[:4], r"\(4, 4\)")]
)
def test_a_network_that_returns_no_embeddings_is_refused(change, given):
    model = network()
    model.register_forward_hook(lambda _module, _args, y: change(y))
    with pytest.raises(ConfigError, match=rf"gave {given} for 10 views.*embeddings \(10, D\)"):
        ssl_step(model, torch.optim.SGD(model.parameters(), 0.1), torch.randn(10, 6), nt_xent)
