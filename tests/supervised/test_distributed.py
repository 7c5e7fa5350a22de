"""Two processes of 16 samples against one of 32; the processes start once for all tests."""

import pytest
import torch

from tests.gan.networks import assert_same
from tests.processes import run_in_processes
from tests.supervised.distributed import CASES, SHARED, WORLD, half, network, train, whole

# Sums over 32 samples in another order: float32's 6e-8 times about ten, relative to terms of O(1).
CLOSE = {"rtol": 1e-5, "atol": 2e-6}


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    """(case, rank) -> gradients of every step, then weights."""
    folder = tmp_path_factory.mktemp("ranks")
    run_in_processes("tests.supervised.distributed", WORLD, folder)
    return {(case, rank): torch.load(folder / f"{case}-{rank}.pt") for case in CASES for rank in range(WORLD)}


@pytest.mark.parametrize("case", CASES)
def test_processes_agree_to_the_bit(of_two_processes, case):
    assert_same(of_two_processes[case, 0], of_two_processes[case, 1])


@pytest.mark.parametrize("case", SHARED)
def test_two_processes_of_half_a_batch_equal_one_of_the_whole(of_two_processes, case):
    model = network()
    assert_same(of_two_processes[case, 0], train(case, model, model, *whole(), 0), **CLOSE)


def test_each_process_mixes_projects_and_codes_its_own_batch(of_two_processes):
    """The first step's gradients are the mean of those of the halves."""
    halves = []
    for rank in range(WORLD):
        model = network()
        kept = train("everything", model, model, *half(rank), rank, steps=1)
        halves.append(kept[: len(kept) // 2])
    mean = [torch.stack(parts).mean(0) for parts in zip(*halves, strict=True)]
    found = of_two_processes["everything", 0][: len(mean)]
    assert_same(found, mean, **CLOSE)
    # Else the test could not tell the ranks' draws apart.
    assert (halves[0][0] - halves[1][0]).abs().max() > 100 * CLOSE["atol"]
