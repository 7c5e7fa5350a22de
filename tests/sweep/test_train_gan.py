"""One sweep of the real script."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_sweep_of_train_gan(bench, monkeypatch):
    monkeypatch.chdir(ROOT)
    fixed = {"training.steps": 4, "training.evaluate_every": 0, "model.width": 4, "data.limit": 40}
    fixed |= {"metrics.num_samples": 20, "training.batch_size": 8}
    cases = {"right": {"coded.ratio_end": [1.25]}, "wrong": {"coded.ration_end": [1.5]}}
    recipe, score = "configs/gan/quickstart.yaml", "FD, digits classifier"
    given = {"fixed": fixed, "cases": cases, "score": [score, f"best {score}"]}
    assert bench.sweep(script="train_gan.py", config=recipe, seeds=1, plots=None, **given) == 2
    right, wrong = bench.table
    assert float(right["FD, digits classifier"]) > 0
    assert 0 < float(right["best FD, digits classifier"]) <= float(right["FD, digits classifier"])
    assert right["n"] == "1"
    assert "data:image/jpeg" in (bench.folder / "study.html").read_text()
    assert "unknown configuration key 'coded.ration_end'. Did you mean coded.ratio_end" in wrong["problems"]
    output = (bench.folder / "runs" / "right,ratio_end=1.25-seed0" / "output.txt").read_text()
    assert output.startswith("$ ")
    assert "Done." in output
