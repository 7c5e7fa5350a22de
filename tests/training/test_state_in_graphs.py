"""Blocks that keep state, coded inside a captured step: the state and the weights of eager steps."""

import copy

import pytest
import torch
from torch import nn

from cs_gan import CodedSmoothing
from cs_gan.training.capture import WARM_UP, CapturedStep, CudaGraphs
from tests.contract.stateful import MemoryBank, VectorQuantiser
from tests.training.recorder import Recorder

STEPS = WARM_UP + 6
BLOCKS = {
    "buffers": VectorQuantiser,
    "frozen parameters": lambda: VectorQuantiser(frozen=True),
    "a queue and its position": MemoryBank,
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh()),
}


def trained(model: nn.Module, batches: torch.Tensor, capture) -> dict[str, torch.Tensor]:
    """The state after a step on each of the batches (s, K, 4)."""
    coded = CodedSmoothing(model, ["0"], 1.5)

    def step(x: torch.Tensor) -> dict[str, torch.Tensor]:
        model.zero_grad(set_to_none=False)
        with coded.observe():
            out = model(x)
        loss = out.square().mean() + coded.penalty()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=0.1)
        return {"loss": loss.detach()}

    update = CapturedStep(step, batches.device, capture=capture)
    for x in batches:
        update("only", {"x": x})
    assert update.captures == (capture is not None)
    return model.state_dict()


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_captured_and_eager_steps_leave_the_same_state(block, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    model = nn.Sequential(block(), nn.Linear(4, 2)).to(device)
    batches = torch.randn(STEPS, 6, 4, device=device)
    before = copy.deepcopy(model.state_dict())
    eager = trained(copy.deepcopy(model), batches, None)
    captured = trained(model, batches, Recorder() if device == "cpu" else CudaGraphs())
    assert all(torch.equal(eager[key], captured[key]) for key in eager)
    kept = before.keys() - {name for name, p in model.named_parameters() if p.requires_grad}
    assert any(not torch.equal(before[key], eager[key]) for key in kept)
