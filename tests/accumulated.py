"""What each of two processes runs in test_accumulation: imported there, so it is a module of its own."""

import os
from datetime import timedelta

import torch
from accelerate import Accelerator

from cs_gan.gan import critic_step
from tests.gan.networks import TinyCritic, batches

WORLD, MICRO, SIZE = 2, 2, 4


def critic():
    """The same weights in every process."""
    torch.manual_seed(3)
    return TinyCritic()


def micro_batch(rank, at):
    """The batch of a process."""
    return batches(SIZE, seed=10 * rank + at)


def run(rank, folder):
    """One process: one update from two micro-batches; the weights are saved as <rank>.pt."""
    torch.set_num_threads(1)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    os.environ |= dict(zip(names, map(str, (rank, rank, WORLD, WORLD)), strict=True))
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=int(rank), world_size=WORLD, timeout=timedelta(seconds=60)
    )
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=MICRO)
    assert accelerator.num_processes == WORLD
    bare = critic()
    network, optimizer = accelerator.prepare(bare, torch.optim.SGD(bare.parameters(), 0.1))
    for at in range(MICRO):
        with accelerator.accumulate(network):
            critic_step(network, optimizer, *micro_batch(int(rank), at), backward=accelerator.backward)
    torch.save(list(bare.state_dict().values()), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
