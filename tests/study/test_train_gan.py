"""Studies of the real script. Other tests here start a stub in processes of its own."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCORE = "FD, digits classifier"
FIXED = {"training.steps": 4, "training.evaluate_every": 0, "model.width": 4, "data.limit": 40}
FIXED |= {"metrics.num_samples": 20, "training.batch_size": 8}
STUDY = {"script": "train_gan.py", "config": "configs/gan/quickstart.yaml", "seeds": 1, "fixed": FIXED}


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_study_of_train_gan(bench, in_this_process):
    grid = {"coded.ratio_end": [1.25]}
    assert bench.study(**STUDY, grid=grid, score=[SCORE, f"best {SCORE}"], plots=None) == 0
    (row,) = bench.table
    assert float(row[SCORE]) > 0
    assert 0 < float(row[f"best {SCORE}"]) <= float(row[SCORE])
    assert row["n"] == "1"
    assert "data:image/jpeg" in (bench.folder / "study.html").read_text()
    output = (bench.folder / "runs" / "ratio_end=1.25-seed0" / "output.txt").read_text()
    assert "Done." in output
