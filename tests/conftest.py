"""One thread and one seed for every test."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

# Before numpy comes: its BLAS would start a thread for each core, and these spin while they wait. Child processes of
# tests inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["CS_GAN_OFFLINE"] = "1"  # no test fetches weights, except from a server of its own

import pytest
import torch

from tests.processes import AfterTorch

torch.set_num_threads(1)
os.fsync = lambda _descriptor: None  # no test cuts the power, and a busy disk takes seconds in all

if not torch.cuda.is_available():
    # torch.manual_seed keeps a stack trace for each kind of GPU, in case one comes up later. That takes 2 ms a call.
    torch.cuda.manual_seed_all = torch.xpu.manual_seed_all = lambda seed: None


@pytest.fixture(autouse=True)
def _same_seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trained digits classifier for all tests and workers, outside the user's own cache."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "cache" / "cs_gan" / "metrics"


@pytest.fixture(scope="session")
def after_torch() -> Iterator[AfterTorch]:
    """Run code in an interpreter that has imported torch and nothing else; torch comes once for all."""
    with AfterTorch() as run:
        yield run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort: at the head of each of two workers' halves are tests that use a server of processes or take long.

    So each server starts in one worker only, and no worker waits at the end for the other's long test.
    """

    def has(item: pytest.Item, *names: str) -> bool:
        return any(
            name in getattr(item, "fixturenames", ()) or hasattr(getattr(item, "module", None), name) for name in names
        )

    forked, started, rest = [], [], []
    for item in items:
        if has(item, "run_in_processes", "outcomes_of_two_processes", "Started", "finish"):
            forked.append(item)
        elif has(item, "after_torch", "launch", "executor"):
            started.append(item)
        else:
            rest.append(item)
    rest.sort(key=lambda item: item.path.parent != Path(__file__).parent)  # tests of whole scripts take the longest
    middle = max(0, len(items) // 2 - len(forked))
    items[:] = forked + rest[:middle] + started + rest[middle:]


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not walk through it again and again."""
    gc.freeze()
