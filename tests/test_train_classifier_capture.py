"""A captured step of train_classifier.py is the plain one, to the bit; by a recorder in the place of CUDA graphs."""

from __future__ import annotations

import pytest

from cs_gan.data import ImageStore
from cs_gan.training import read_lines
from cs_gan.training.capture import WARM_UP
from tests.scripts import _plain_runs, _recorder, _signal_handlers_as_before, equal, final_tensors, plain  # noqa: F401 (fixtures)
from tests.test_train_classifier import run

LONG = ["--training.steps=16", "--training.checkpoint_every=8", "--data.flip=true", "--training.warmup=0.3"]
LONG += ["--metrics.rci_ratio=null"]
# Arguments, and how many graphs they take.
METHODS = {
    "erm": ([], 1),
    "adamw": (["--training.optimizer=adamw", "--training.learning_rate=0.002"], 1),
    "logit norm": (["--method.logit_norm=0.1", "--method.label_smoothing=0.1"], 1),
    "jacobian": (["--method.jacobian=0.01"], 1),
    "mixup": (["--method.mixup.alpha=1"], 1),
    "mixup, half of the batches": (["--method.mixup.alpha=1", "--method.mixup.probability=0.5"], 2),
    "cutmix": (["--method.cutmix.alpha=1"], 1),
    "manifold mixup": (["--method.manifold_mixup.alpha=1", "--method.manifold_mixup.blocks=['', blocks.1]"], 2),
    "coded": (["--method.coded.blocks=['']", "--method.coded.ratio_end=1.25"], 3),
    "coded, at times": (["--method.coded.blocks=['']", "--method.coded.ratio_end=1", "--method.coded.every=3"], 2),
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
