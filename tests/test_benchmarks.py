"""The benchmarks run and keep their form; what coding costs is held in FLOPs, which no other process disturbs."""

import csv
import json
import sys
import time

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import coding, diagnosis, large_batches, spirals, warm_runs
from benchmarks.killed_run import TrainingProcess
from benchmarks.timing import Timing, TimingRow, measure, table
from cs_gan import CodedSmoothing, SplineCode
from models import build_gan


@pytest.fixture
def tiny():
    critic = build_gan("dcgan16", width=8)[1]
    return critic, torch.randn(8, *critic.image_shape)


def test_measure_takes_turns_after_a_warm_up():
    called = []
    ticks = iter(range(1000))  # every reading a second later: each call is slow enough to be made once
    variants = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    timings = measure(variants, 3, clock=lambda: next(ticks))
    assert called == ["a", "b"] * 4
    assert timings == {"a": Timing((1.0,) * 3), "b": Timing((1.0,) * 3)}


def test_measure_repeats_a_fast_call_and_gives_seconds_per_call():
    now = 0.0

    def run():
        nonlocal now
        now += 0.001

    timing = measure({"run": run}, 2, clock=lambda: now)["run"]
    assert timing.rounds == pytest.approx((0.001, 0.001))
    assert now == pytest.approx(0.001 * (2 + 2 * 20), abs=0.003)  # LEAST is 20 such calls


def test_ratios_are_taken_round_by_round():
    base, timing = Timing((1.0, 10.0, 2.0)), Timing((2.0, 20.0, 6.0))
    assert timing.relative_to(base).rounds == (2.0, 2.0, 3.0)
    assert timing.relative_to(base).quartiles == (2.0, 2.0, 2.5)
    assert table([TimingRow("x", timing, base)])[1] == ["x", "6000", "4000", "1.3e+04", "2.0000", "2.0000", "2.5000"]


def test_every_measurement_gives_positive_times(tiny):
    shared = *tiny, 2, time.process_time
    rows = coding.step_rows(shared[0], "blocks.1", *shared[1:])
    assert [row.base is None for row in rows] == [True] + [False] * 7
    rows += coding.fitting_rows(shared[0], "blocks.1", *shared[1:])
    rows += large_batches.build_rows([8], *shared[2:])
    assert len(rows) == 14
    assert all(len(row.timing.rounds) == 2 and min(row.timing.rounds) > 0 for row in rows)
    built, _, cached = rows[-3:]
    assert cached.timing.median < built.timing.median / 10  # about 1/400: the build was no cache hit


def test_an_attached_critic_computes_the_same_bits(tiny):
    rows = coding.outside_rows(tiny[0], "blocks.1", tiny[1], 2, time.process_time)
    assert [row.base is None for row in rows] == [True, False, False]


@pytest.mark.parametrize("observing", [False, True])
def test_a_coding_that_changes_the_critic_is_noticed(tiny, monkeypatch, observing):
    def attach(critic, blocks):
        coded = CodedSmoothing(critic, blocks)
        block = critic.get_submodule(blocks[0])
        block.register_forward_hook(lambda _m, _a, out: out * 1.001 if bool(coded._inside) == observing else None)
        return coded

    monkeypatch.setattr(coding, "CodedSmoothing", attach)
    with pytest.raises(AssertionError, match="changed"):
        coding.outside_rows(tiny[0], "blocks.1", tiny[1], 1, time.process_time)


@pytest.mark.parametrize("ratio", coding.RATIOS)
def test_encode_and_decode_are_under_one_percent_of_a_critic_step(ratio):
    critic = build_gan("paper32")[1]
    coded, forwards = coding.flops(critic, "blocks.2", torch.randn(64, *critic.image_shape), ratio)
    # Two products forward and two backward, each of N x 64 by 64 x (128 * 8 * 8), and two FLOPs a multiply-add.
    assert coded == 4 * 2 * round(ratio * 64) * 64 * 128 * 8 * 8
    assert coded < 0.01 * forwards  # of the forwards alone; the whole step is several times that


def test_the_command_prints_a_table_and_writes_it(tmp_path, capsys):
    tiny = ["--network=dcgan16", "--width=8", "--block=blocks.1", "--batch=8", "--repeats=1"]
    tiny += ["--sizes", "40", "64", "--features=5", "--classifier=cnn_small", "--classifier-block=blocks.0"]
    coding.main([*tiny, "--classifier-batch=8", f"--json={tmp_path / 'coding.json'}"])
    printed = capsys.readouterr().out
    assert "FLOPs of encode + decode" in printed
    found = json.loads((tmp_path / "coding.json").read_text())
    assert len(found["ms"]) == 14 + 6 + 4 + 2  # no name twice
    assert all(name in printed for name in found["ms"])
    assert found["ratio"]["encode + decode, K = 64, by blocks"] > 0
    assert found["encode + decode of 64 samples at blocks.0, of a cnn_small step, by FLOPs"] < 1


def test_the_splines_in_torch_are_those_of_the_matrices():
    code, x, y = SplineCode(7, 10), torch.randn(7, 2, 3).double(), torch.randn(10, 5).double()
    alpha, beta = (torch.from_numpy(-nodes) for nodes in (code.alpha, code.beta))
    for nodes, points, values, expected in ((alpha, beta, x, code.encode(x)), (beta, alpha, y, code.decode(y))):
        found = large_batches.torch_spline(nodes, points)(values.flatten(1))
        torch.testing.assert_close(found, expected.flatten(1), rtol=0, atol=1e-12)


def test_blocks_spare_most_of_a_large_dense_product():
    counts = []
    for blocked in (False, True):
        run = large_batches._both_ways(512, 768, 3, "cpu", blocked)
        with FlopCounterMode(display=False) as counted:
            run()
        counts.append(counted.get_total_flops())
    assert counts[0] == 4 * 2 * 512 * 768 * 3
    assert counts[1] < 0.11 * counts[0]  # 0.10


def test_encode_and_decode_of_4096_samples_are_under_two_percent_of_a_resnets_step():
    # 1/1024 of the features and one round; only FLOPs are asked for, which scale with both exactly.
    clock = time.process_time
    flops = large_batches.share_rows(4096, 2, "blocks.0", 1024, 1, clock, "cpu", "preact_resnet18")[2]
    assert flops < 0.02  # the block with the largest input and output of all; 0.013


def test_spirals_writes_a_picture_and_its_numbers_for_every_method(tmp_path, capsys):
    few = ["--seeds=2", "--tuning-seeds=1", "--steps=2", "--points=40"]
    assert spirals.main([f"--output={tmp_path / 'pictures' / 's.png'}", *few]) == 0
    with Image.open(tmp_path / "pictures" / "s.png") as picture:
        assert picture.size[0] > 3 * picture.size[1]  # five panels side by side
    with (tmp_path / "pictures" / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == [method.name for method in spirals.METHODS for _ in range(2)]
    for method in spirals.METHODS:
        assert {float(row["strength"]) for row in rows if row["method"] == method.name} <= set(method.strengths)
    table = capsys.readouterr().out
    mean = sum(float(row["Jacobian norm"]) for row in rows[:2]) / 2
    cell = table.splitlines()[2].split("|")[6].split("±")[0].strip().replace(",", "")
    decimals = len(cell.partition(".")[2])
    assert float(cell) == pytest.approx(mean, abs=0.51 * 10**-decimals)


def test_diagnosis_tells_of_each_case(capsys):
    assert diagnosis.main(["--steps=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(diagnosis.CASES)
    assert "collapse to ERM" in lines[-1]  # N = 4 K, whose code hardly acts on an affine block


RUN = """
import json, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
options = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
folder = Path(options["output_dir"])
(folder / "config.yaml").write_text("training: {steps: 1}")
save_file({"seed": np.array([int(options["seed"])])}, folder / "snapshot.safetensors")
(folder / "scores.json").write_text(json.dumps({"final": {"step": 1, "scores": {"seed": 0}}}))
"""


def test_warm_runs_compares_forked_runs_with_fresh_processes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # which the command leaves
    script = tmp_path / "run.py"
    script.write_text(RUN)
    monkeypatch.setattr(warm_runs, "SCRIPT", script)
    assert warm_runs.main(["--runs=3", "--jobs=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 runs of one step, 2 at a time")
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["a fresh process", "forked", "ratio"]
    assert all(float(cell) > 0 for line in lines[4:] for cell in line.split("|")[2:5])


def test_a_run_that_has_ended_has_no_family_left_to_kill(tmp_path):
    run = TrainingProcess([sys.executable, "-c", ""], tmp_path, tmp_path / "output.txt")
    run.finish()
    run.kill(run.family())
    assert run.family() == []


def test_the_digits_folder_has_each_digit_once_and_test_images_of_every_class(tmp_path, capsys):
    from benchmarks import digits_folder

    root = tmp_path / "digits"
    assert digits_folder.main([str(root)]) == 0
    assert len(list(root.glob("train/*/*.png"))) == 1297
    assert len(list(root.glob("test/*/*.png"))) == 500
    names = [path.name for path in root.rglob("*.png")]
    assert len(set(names)) == 1797
    counts = [len(list(folder.iterdir())) for folder in (root / "test").iterdir()]
    assert max(counts) - min(counts) <= 3  # the classes themselves differ by that much
    assert digits_folder.main([str(root)]) == 2  # nothing is written over
    assert "doesn't exist yet" in capsys.readouterr().err


def test_held_share_reads_the_ratio_of_each_line_from_the_logs_of_a_study(tmp_path, capsys):
    from benchmarks import held_share

    run = tmp_path / "study" / "runs" / "inner_block,critic.share=0.1~ab12-seed0"
    run.mkdir(parents=True)
    rows = [{"step": 50, "critic_share": 0.2, "critic_loss": 1.0}, {"step": 100, "critic_share": 0.11}]
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run.parent / "plain-seed0").mkdir()
    output = tmp_path / "held.csv"
    assert held_share.main([str(tmp_path / "study"), "--output", str(output)]) == 0
    assert output.read_text().splitlines()[1:] == ["inner_block,0.1,50,1,2", "inner_block,0.1,100,1,1.1"]
    assert output.with_suffix(".png").exists()
    assert "50 % within 0.8 to 1.25" in capsys.readouterr().out
