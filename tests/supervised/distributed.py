"""What each of two processes runs in test_distributed: imported there, so it is a module of its own."""

from datetime import timedelta

import torch
from torch.nn.parallel import DistributedDataParallel

from cs_gan import CodedSmoothing
from cs_gan.supervised import ManifoldMixUp
from tests.supervised.networks import batch, mlp, step

WORLD, HALF = 2, 16
SHARED = ("erm", "logit_norm")  # cases whose loss is a mean over samples
CASES = (*SHARED, "everything")


def network():
    """The same weights in every process."""
    torch.manual_seed(3)
    return mlp(torch.float32)


def train(case, model, bare, images, labels, rank, steps=2):
    """The gradients of each step, then the weights; the step's generator is keyed by step and rank."""
    options = {} if case == "erm" else {"logit_norm": 0.5}
    if case == "everything":
        coded = CodedSmoothing(bare, ["3"], 1.5)
        options |= {"mix": ManifoldMixUp(1.0, ["1", "3"]), "jacobian": 0.1, "coded": coded, "mu": 0.3}
    kept = []
    for at in range(steps):
        step(model, images, labels, seed=f"{at} {rank}", **options)
        kept += [p.grad.clone() for p in bare.parameters()]
    return kept + [p.detach().clone() for p in bare.parameters()]


def whole():
    return batch(WORLD * HALF, torch.float32)


def half(rank):
    mine = slice(rank * HALF, (rank + 1) * HALF)
    return tuple(x[mine] for x in whole())


def run(rank, folder):
    """One process: every case, results saved as <case>-<rank>.pt."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD, timeout=timedelta(seconds=60)
    )
    for case in CASES:
        model = network()
        wrapped = DistributedDataParallel(model)
        torch.save(train(case, wrapped, model, *half(rank), rank), f"{folder}/{case}-{rank}.pt")
    torch.distributed.destroy_process_group()
