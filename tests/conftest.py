"""One thread and one seed for every test."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture
def signal_handlers_as_before() -> Iterator[None]:
    """A run's signal handlers stay with its process, which here is that of all tests."""
    from cs_gan.runs import SIGNALS

    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def without_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No curves and reports, and grids of 4: they take more time than all the rest of a toy run.

    A test that looks at them asks for the fixture ``pictures``.
    """
    from cs_gan import report
    from tasks.gan import task

    if "pictures" in request.fixturenames:
        return
    for name in ("save_curve", "save_report"):
        monkeypatch.setattr(report, name, lambda *_args: None)
    monkeypatch.setattr(task, "SAMPLES", 4)
    monkeypatch.setattr(task.Looks, "save", lambda *_args, **_kwargs: None)


@pytest.fixture
def pictures() -> None:
    """For tests that look at a run's pictures and report; see ``without_pictures``."""


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As on CUDA: an optimiser in one kernel with a learning rate in a tensor, images on the device, a capture."""
    from cs_gan.data import ImageStore
    from cs_gan.training import Session
    from tasks import one_network
    from tasks.gan import task
    from tests.training.recorder import Recorder

    for module in (task, one_network):
        monkeypatch.setattr(module, "device_options", lambda _device, rate: {"lr": torch.tensor(rate), "fused": True})
    monkeypatch.setattr(ImageStore, "fits", lambda self, device: True)
    capture = Recorder()
    monkeypatch.setattr(Session, "capture", lambda self, *obstacles: (capture, ""))
    return capture


@pytest.fixture
def gan_folder(tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with the snapshot of a generator, and another generator as its best."""
    from tests.evaluated import write_snapshot  # imports evaluate.py, which most tests do without

    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_dir.parents[1]))  # the classifier of digits is trained once
    (tmp_path / "run").mkdir()
    write_snapshot(tmp_path / "run" / "snapshot.safetensors", 1)
    write_snapshot(tmp_path / "run" / "best.safetensors", 2, step=60)
    return tmp_path / "run"


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


@pytest.fixture
def reduced_on(monkeypatch):
    """The devices of tensors that are summed over two processes, of which this is one; the sums are left out."""
    devices = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: devices.append(tensor.device.type))
    return devices
