"""A captured step of train_ssl.py is the plain one, to the bit; by a recorder in the place of CUDA graphs."""

from __future__ import annotations

import pytest

from cs_gan.data import ImageStore
from cs_gan.training import read_lines
from cs_gan.training.capture import WARM_UP
from tests.scripts import _plain_runs, _recorder, _signal_handlers_as_before, equal, final_tensors, plain  # noqa: F401 (fixtures)
from tests.test_train_ssl import BARLOW, ENCODER, PROJECTOR, run

LONG = ["--training.steps=16", "--training.checkpoint_every=8", "--training.warmup=0.3"]
VIEWS = ["--views.turn=15", "--views.noise=0.1", "--data.channels=3"]
# Arguments, and how many graphs they take.
METHODS = {
    "simclr": ([], 1),
    "simclr, colours": (VIEWS, 1),
    "barlow twins": ([*BARLOW, "--training.optimizer=adamw", "--training.learning_rate=0.002"], 1),
    "coded encoder, growing weight": ([*ENCODER, "--coded.ratio_end=1.125", "--coded.weight_end=1"], 3),
    "coded projector, at times": ([*PROJECTOR, "--coded.ratio_end=1", "--coded.every=3"], 2),
}


@pytest.mark.parametrize("name", METHODS)
def test_captured_and_plain_runs_end_in_the_same_bits(tmp_path, recorder, monkeypatch, name):
    method, graphs = METHODS[name]
    assert run(tmp_path / "captured", *LONG, *method) == 0
    assert recorder.captures == graphs
    assert recorder.replays == 16 - graphs * WARM_UP
    plain(monkeypatch)
    monkeypatch.setattr(ImageStore, "fits", lambda self, device: False)
    assert run(tmp_path / "plain", *LONG, *method) == 0
    assert equal(final_tensors(tmp_path / "captured"), final_tensors(tmp_path / "plain"))
    logs = [[row["loss"] for row in read_lines(tmp_path / end / "log.jsonl")] for end in ("captured", "plain")]
    assert logs[0] == logs[1]
    assert len(set(logs[0])) == 16
