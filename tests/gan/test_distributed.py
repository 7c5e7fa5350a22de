"""Two processes of 32 samples against one of 64; the processes start once for all tests."""

import pytest
import torch

from tests.gan.distributed import CASES, WORLD, both_halves, code, half, networks, train
from tests.gan.networks import assert_same
from tests.processes import run_in_processes

# Sums over 64 samples in another order: float32's 6e-8 times about ten, relative to terms of O(1).
CLOSE = {"rtol": 1e-5, "atol": 2e-6}


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    """(case, rank) -> gradients of every update, then weights."""
    folder = tmp_path_factory.mktemp("ranks")
    run_in_processes("tests.gan.distributed", WORLD, folder)
    return {(case, rank): torch.load(folder / f"{case}-{rank}.pt") for case in CASES for rank in range(WORLD)}


@pytest.mark.parametrize("case", CASES)
def test_processes_agree_to_the_bit(of_two_processes, case):
    assert_same(of_two_processes[case, 0], of_two_processes[case, 1])


def test_two_processes_of_32_equal_one_of_64(of_two_processes):
    generator, critic = networks()
    alone = train("plain", generator, critic, critic, (None, None), *both_halves())
    assert_same(of_two_processes["plain", 0], alone, **CLOSE)


@pytest.mark.parametrize("case", [case for case in CASES if case != "plain"])
def test_a_coded_block_codes_each_processs_own_batch(of_two_processes, case):
    """The first update's gradients are the mean of those of the halves, and not the whole batch's."""

    def critics_gradients(batch, z):
        generator, critic = networks()
        coded = (code(generator, case), code(critic, case))
        kept = train(case, generator, critic, critic, coded, batch, z)
        return kept[: len(list(critic.parameters()))]

    halves = [critics_gradients(*half(rank)) for rank in range(WORLD)]
    mean = [torch.stack(parts).mean(0) for parts in zip(*halves, strict=True)]
    found = of_two_processes[case, 0][: len(mean)]
    assert_same(found, mean, **CLOSE)
    whole = critics_gradients(*both_halves())
    # Else the test could not tell them apart.
    assert (found[0] - whole[0]).abs().max() > 100 * CLOSE["atol"]
