"""What each of two processes runs in test_distributed: imported there, so it is a module of its own."""

import copy
from datetime import timedelta

import torch
from torch.nn.parallel import DistributedDataParallel

from cs_gan import CodedSmoothing
from cs_gan.gan import critic_step, generator_step
from tests.gan.networks import TinyCritic, TinyGenerator, batches

WORLD, HALF = 2, 32
CASES = ("plain", "real", "both")


def networks():
    """The same weights in every process."""
    torch.manual_seed(3)
    return TinyGenerator(), TinyCritic()


def code(network, part):
    """The coded block of a case; plain has none."""
    return None if part == "plain" else CodedSmoothing(network, ["body"], 1.5, weight=2.0)


def train(case, generator, critic, bare_critic, coded, batch, z):
    """Two updates of each network; returns the gradients of all four updates and the weights after them."""
    # SGD's steps are proportional to the gradients: what Adam's signs would hide shows in the weights.
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.05) for network in (generator, critic)]
    kept = []
    for step in range(2):
        real, fake, alpha = (x[step] for x in batch)
        on = "real" if case == "plain" else case
        critic_step(critic, optimizers[1], real, fake, alpha, coded=coded[1], coded_on=on)
        kept += [p.grad.clone() for p in critic.parameters()]
        generator_step(generator, bare_critic, optimizers[0], z[step], coded=coded[0])
        kept += [p.grad.clone() for p in generator.parameters()]
    return kept + [p.detach().clone() for network in (generator, critic) for p in network.parameters()]


def both_halves():
    """Two steps of 64 samples: (2, 64, ...)."""
    steps = [batches(WORLD * HALF, seed) for seed in (1, 2)]
    latents = torch.randn(2, WORLD * HALF, 5, generator=torch.Generator().manual_seed(5))
    return [torch.stack(parts) for parts in zip(*steps, strict=True)], latents


def half(rank):
    """A rank's 32 samples of each step."""
    batch, z = both_halves()
    mine = slice(rank * HALF, (rank + 1) * HALF)
    return [x[:, mine] for x in batch], z[:, mine]


def run(rank, folder):
    """One process: every case, results saved as <case>-<rank>.pt."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD, timeout=timedelta(seconds=60)
    )
    assert torch.distributed.get_world_size() == WORLD
    for case in CASES:
        generator, critic = (copy.deepcopy(network) for network in networks())
        coded = [code(network, case) for network in (generator, critic)]
        wrapped = [DistributedDataParallel(network) for network in (generator, critic)]
        passes = []
        wrapped[1].register_forward_hook(lambda _module, _args, y, passes=passes: passes.append(len(y)))
        torch.save(train(case, *wrapped, critic, coded, *half(rank)), f"{folder}/{case}-{rank}.pt")
        # Real and fake of two steps; the gradient penalty's passes went to the bare critic.
        assert passes == [HALF] * 4, passes
    torch.distributed.destroy_process_group()
