"""What each of two processes runs for the DDP column: every kind under DistributedDataParallel."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import torch
import torch._dynamo
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tests.contract.by_hand import freeze_power_iteration, rebuilt
from tests.contract.helpers import EXACT, attach, total
from tests.contract.kinds import KINDS
from tests.contract.table import outcome

with suppress(ImportError):  # here, where it is imported once for both
    from transformers import GPT2Model  # noqa: F401

WORLD = 2


def coded_gradients(kind, rank, wrap):
    """Of the rank's own batch, with the model called as ``wrap(model)``."""
    model, batch = kind.model(), kind.batch(seed=10 + rank)
    freeze_power_iteration(model)
    coded = attach(kind, model)
    called = wrap(model)
    torch.manual_seed(3 + rank)
    with coded.observe():
        output = called(*rebuilt(batch, torch.Tensor.clone))
    (total(output) + coded.penalty()).backward()
    return [parameter.grad for parameter in model.parameters() if parameter.requires_grad]


def buffers_after(kind, rank, coded):
    """What two calls under DDP, which hands rank 0's buffers to all before each, leave in the model."""
    model = kind.model()
    freeze_power_iteration(model)
    called = DistributedDataParallel(model)
    smoothing = attach(kind, model)
    for call in range(2):
        torch.manual_seed(rank)
        batch = rebuilt(kind.batch(seed=10 * call + rank), torch.Tensor.clone)
        with smoothing.observe() if coded else torch.no_grad(), torch.no_grad():
            called(*batch)
    return dict(model.named_buffers())


def mean_alone(kind, rank):
    """The mean over ranks of the gradients that each has without a wrapper."""
    alone = coded_gradients(kind, rank, lambda model: model)
    flat = torch.cat([gradient.flatten() for gradient in alone])  # one message: each waits for a busy machine's turn
    torch.distributed.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in alone])
    return [part.view_as(gradient) / WORLD for part, gradient in zip(parts, alone, strict=True)]


def distributed(kind, rank):
    """Gradients of a coded loss under DDP are the mean of what the ranks have alone; buffers are as without coding."""
    for mean, gradient in zip(
        mean_alone(kind, rank), coded_gradients(kind, rank, DistributedDataParallel), strict=True
    ):
        torch.testing.assert_close(gradient, mean, **EXACT)
    bare, coded = (buffers_after(kind, rank, coded) for coded in (False, True))
    torch.testing.assert_close(coded, bare, rtol=0, atol=0)


def sharded(kind, rank):
    """The same under FSDP2 (fully_shard), with the block and the model around it sharded."""
    mesh = init_device_mesh("cpu", (WORLD,))

    def whole(gradient):
        return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient

    def shard(model):
        fully_shard(model.get_submodule(kind.name), mesh=mesh)
        return fully_shard(model, mesh=mesh)

    together = [whole(gradient) for gradient in coded_gradients(kind, rank, shard)]
    for mean, gradient in zip(mean_alone(kind, rank), together, strict=True):
        torch.testing.assert_close(gradient, mean, **EXACT)


def run(rank, folder):
    """One process: writes what came of every kind as <rank>.json."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD, timeout=timedelta(seconds=60)
    )
    outcomes = {name: outcome(lambda kind: distributed(kind, rank), KINDS[name]) for name in KINDS}
    for name in ("Sequential", "called three times"):
        sharded(KINDS[name], rank)
    Path(folder, f"{rank}.json").write_text(json.dumps(outcomes))
    torch.distributed.destroy_process_group()
