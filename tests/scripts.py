"""What tests of whole runs in their own process share: fixtures to import, and how two runs are compared."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import sklearn.datasets
import torch

from cs_gan.data import ImageStore
from cs_gan.runs import read_lines
from cs_gan.training import Session, list_checkpoints, read_checkpoint
from tasks import image_task, one_network
from tasks.gan import task as gan_task
from tests.training.recorder import Recorder

_digits = functools.cache(sklearn.datasets.load_digits)  # parsing their text takes as long as a toy step


@pytest.fixture(autouse=True)
def _signal_handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(name="drawn")
def _drawn() -> None:
    """For tests that look at a run's pictures and report; see ``_plain_runs``."""


@pytest.fixture(autouse=True)
def _plain_runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves, reports and grids of 64 take more time than all the rest of a toy run: they are made on request."""
    monkeypatch.setattr(sklearn.datasets, "load_digits", _digits)
    if "drawn" in request.fixturenames:
        return
    for name in ("save_curve", "save_report"):
        monkeypatch.setattr(image_task, name, lambda *_args: None)
    monkeypatch.setattr(gan_task, "SAMPLES", 4)


@pytest.fixture(name="recorder")
def _recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """As on CUDA: an optimiser in one kernel with a learning rate in a tensor, images on the device, a capture."""
    for module in (gan_task, one_network):
        monkeypatch.setattr(module, "device_options", lambda _device, rate: {"lr": torch.tensor(rate), "fused": True})
    monkeypatch.setattr(ImageStore, "fits", lambda self, device: True)
    capture = Recorder()
    monkeypatch.setattr(Session, "capture", lambda self, *obstacles: (capture, ""))
    return capture


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No capture from here on."""
    monkeypatch.setattr(Session, "capture", lambda self, *obstacles: (None, ""))


def last(folder: Path) -> Path:
    """The last checkpoint of a run."""
    return list_checkpoints(folder / "checkpoints")[-1]


def final_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Weights, averages and optimiser moments at the end of a run."""
    return read_checkpoint(last(folder))[0]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors hold the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def states_equal(first: Path, second: Path) -> bool:
    """Whether two checkpoints hold the same bits: weights, averages and optimiser moments."""
    return equal(read_checkpoint(first)[0], read_checkpoint(second)[0])


def losses(folder: Path) -> list[dict[str, float]]:
    """The log without the speed."""
    rows = read_lines(folder / "log.jsonl")
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]


# A classifier or an encoder, small enough for a test.
ONE_NETWORK = {
    "data.name": "digits",
    "data.image_size": 8,
    "data.holdout": 1500,
    "model.name": "cnn_small",
    "model.width": 4,
    "training.steps": 4,
    "training.batch_size": 8,
    "training.log_every": 1,
    "training.checkpoint_every": 2,
    "tracking.trackers": "none",
}


def words(folder: Path, recipe: Mapping[str, object], *more: str) -> list[str]:
    """The command line for a recipe; what comes later wins."""
    return [f"--output_dir={folder}", *(f"--{key}={value}" for key, value in recipe.items()), *more]


def refusal(capsys: pytest.CaptureFixture[str], run: Callable[..., int], folder: Path, *more: str) -> str:
    """What ``run`` prints when it refuses; it must not have made a step."""
    before = read_lines(folder / "log.jsonl")
    capsys.readouterr()
    assert run(folder, *more) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert read_lines(folder / "log.jsonl") == before
    return error


def assert_resumes(run: Callable[..., int], folder: Path, *more: str) -> None:
    """A run that goes back to its first checkpoint ends in the same bits as one that doesn't."""
    kept = [*more, "--training.keep_checkpoints=9"]
    assert run(folder / "whole", *kept) == 0
    ends = [last(folder / "whole"), list_checkpoints(folder / "whole" / "checkpoints")[0]]
    assert run(folder / "parts", *kept, f"--resume={ends[1]}") == 0
    assert states_equal(ends[0], last(folder / "parts"))
