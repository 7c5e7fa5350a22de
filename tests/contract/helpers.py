"""What the contract's checks share: attach and run a model, compare, take stock of its state."""

from __future__ import annotations

import torch

from cs_gan import CodedSmoothing
from tests.contract.by_hand import RATIO, rebuilt, tensors
from tests.core.helpers import hook_count

# Float64 against float64: the squares of differences of 1e-13, or relative errors of 1e-11 of a few matrix
# products of order 1. Second derivatives add some more of these.
EXACT = {"rtol": 1e-8, "atol": 1e-11}


class TorchRefuses(Exception):
    """What torch does not do for the bare model either."""


class NeedsMathKernel(Exception):
    """What torch does only with its attention kernel made of plain operations."""


def attach(kind, model):
    return CodedSmoothing(model, [kind.name], RATIO, **kind.options)


def run(model, batch, seed=3):
    """The model's output, with the same dropout masks whenever the seed is the same."""
    torch.manual_seed(seed)
    return model(*rebuilt(batch, torch.Tensor.clone))


def observe(kind, model, batch):
    coded = attach(kind, model)
    with coded.observe():
        output = run(model, batch)
    penalty = coded.penalty()
    coded.detach()
    return output, penalty


def total(output):
    """A scalar of all of it, with a gradient that is nowhere constant."""
    return sum(x.sin().square().sum() for x in tensors(output) if x.is_floating_point())


def same(first, second):
    first, second = tensors(first), tensors(second)
    return len(first) == len(second) > 0 and all(map(torch.equal, first, second))


def close(first, second):
    for mine, other in zip(tensors(first), tensors(second), strict=True):
        torch.testing.assert_close(mine, other, **EXACT)


def gradients(scalar, model, **options):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    values = torch.autograd.grad(scalar, trained, allow_unused=True, **options)
    return [torch.zeros(()) if value is None else value for value in values]


def state(model):
    """Everything of a model that coding could leave changed."""
    return [
        hook_count(model),
        {name: value.detach().clone() for name, value in model.state_dict().items()},
        [(name, id(value)) for name, value in (*model.named_parameters(), *model.named_buffers())],
        [(module.training, set(vars(module))) for module in model.modules()],
    ]


def assert_same_state(before, after):
    torch.testing.assert_close(before[1], after[1], rtol=0, atol=0)
    assert (before[0], *before[2:]) == (after[0], *after[2:])


def replace_block(model, old, new):
    """Under all of its parents."""
    for parent in [module for module in model.modules() if module is not old]:
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)


def observe_once(coded, model, batch):
    with coded.observe():
        run(model, batch)
