"""train_gan.py from the command line's point of view: what it writes, resumes, refuses and survives."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

import cs_gan.training.session as session_module
import evaluate
import train_gan
from cs_gan.randomness import normal
from cs_gan.runs import METRICS_LINE, SIGNALS, RunFolder, read_lines, write_lines
from cs_gan.training import Session, list_checkpoints, parse_config, read_checkpoint, read_snapshot
from tasks.gan.recipe import GanConfig
from tasks.gan.task import GanTask
from tests.launched import WORLD
from tests.processes import free_port, run_in_processes
from tests.reliability.runs import Started
from tests.scripts import last, losses, states_equal

pytestmark = pytest.mark.usefixtures("signal_handlers_as_before", "without_pictures")

ROOT = Path(__file__).parents[1]
CODED = ["--coded.critic.blocks=blocks.1", "--coded.generator.blocks=blocks.0"]


def arguments(folder: Path, *more: str) -> list[str]:
    tiny = {
        "output_dir": folder,
        "model.name": "dcgan16",
        "model.width": 4,
        "data.limit": 40,
        "training.steps": 4,
        "training.batch_size": 8,
        "training.n_critic": 2,
        "training.log_every": 1,
        "training.checkpoint_every": 2,
        "metrics.extractor": "none",
        "metrics.num_reference": 100,
        "tracking.trackers": "none",
    }
    return [*(f"--{key}={value}" for key, value in tiny.items()), *more]


def run(folder: Path, *more: str) -> int:
    return train_gan.main(arguments(folder, *more))


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *more: str) -> str:
    """The one line that a refused run prints; it must not have made a step."""
    assert run(folder, *more) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert not (folder / "log.jsonl").exists()
    return error


# -- what it writes --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> tuple[RunFolder, str]:
    """The folder of a scored and coded run of four steps with all its pictures, and what it printed."""
    folder, printed = tmp_path_factory.mktemp("scored") / "run", io.StringIO()
    words = ["--metrics.extractor=digits", "--metrics.num_samples=100", "--training.evaluate_every=2"]
    words += ["--tracking.trackers=tensorboard", "--training.sample_every=2", *CODED]
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with redirect_stdout(printed):
        assert run(folder, *words) == 0
    for number, handler in before.items():
        signal.signal(number, handler)
    return RunFolder(folder), printed.getvalue()


def test_a_run_has_a_line_for_each_step_and_each_evaluation(scored):
    folder, _ = scored
    assert [row["step"] for row in read_lines(folder.metrics)] == [0, 2, 4]
    assert [row["step"] for row in read_lines(folder.log)] == [1, 2, 3, 4]


def test_each_score_tells_what_it_was_measured_on(scored):
    folder, _ = scored
    for row in read_lines(folder.metrics):
        about = row["provenance"]
        assert row["scores"][row["primary"]] > 0
        assert (about["step"], about["network"], about["num_samples"]) == (row["step"], "EMA", 100)
        assert (about["extractor"], about["reference"]["split"]) == ("digits", "train")
        assert {"weights_sha256", "seconds", "seed", "num_reference"} <= about.keys()


def test_the_log_has_both_penalties_and_the_ratio_of_its_step(scored):
    row = read_lines(scored[0].log)[-1]
    assert float(row["critic_coded"]) > 0
    assert float(row["generator_coded"]) > 0
    assert float(row["ratio"]) == pytest.approx(1.0 + 0.5 * 3 / 4)  # linear from 1.0 to 1.5, at the fourth step of 4


def test_grids_curve_strips_table_and_report_are_made(scored):
    folder, _ = scored
    for path in (folder.grid, folder.curve, folder.real, folder.interpolation, folder.nearest):
        with Image.open(path) as picture:
            assert np.asarray(picture).std() > 0
    assert [step for step, _ in folder.grid_steps()] == [0, 2, 4]
    assert "<html" in folder.report.read_text()
    assert folder.table.read_text().startswith("step,")


def test_the_training_data_is_recorded(scored):
    about = json.loads((scored[0].path / "training_data.json").read_text())
    assert (about["name"], about["path"], about["count"]) == ("digits", None, 40)


def test_snapshots_are_of_the_last_and_the_best_step(scored):
    folder, _ = scored
    trained = read_lines(folder.metrics)[1:]
    best = min(trained, key=lambda row: row["scores"][row["primary"]])
    snapshots = {name: read_snapshot(getattr(folder, name)) for name in ("snapshot", "best")}
    assert {name: snapshot.step for name, snapshot in snapshots.items()} == {"snapshot": 4, "best": best["step"]}
    assert snapshots["best"].scores == best["scores"]
    assert snapshots["snapshot"].config["model"]["name"] == "dcgan16"


def test_the_end_of_a_run_says_where_things_are_and_never_calls_another_distance_fid(scored):
    _, printed = scored
    for name in ("grid.png", "curve.png", "FD, digits classifier"):
        assert name in printed
    assert "FID" not in printed


def test_tensorboard_gets_its_files(scored):
    assert list(scored[0].tracking.rglob("events.out.tfevents.*"))


def test_final_and_best_are_scored_in_full_at_the_end(tmp_path):
    scored = ["--metrics.extractor=digits", "--metrics.num_samples=60", "--metrics.final_samples=100"]
    assert run(tmp_path / "run", *scored, "--training.evaluate_every=1") == 0
    folder = tmp_path / "run"
    rows, full = read_lines(folder / "metrics.jsonl"), json.loads((folder / "scores.json").read_text())
    best = min(rows, key=lambda row: row["scores"][row["primary"]])
    assert (full["final"]["step"], full["best"]["step"]) == (4, best["step"])
    assert {row["provenance"]["num_samples"] for row in rows} == {60}
    assert {row["provenance"]["num_samples"] for row in full.values()} == {100}
    # A second start of a finished run computes nothing.
    before = (folder / "scores.json").stat().st_mtime_ns
    assert run(tmp_path / "run", *scored, "--training.evaluate_every=1") == 0
    assert (folder / "scores.json").stat().st_mtime_ns == before


def test_evaluation_that_a_kill_left_out_is_made_up_for(tmp_path):
    scored = ["--metrics.extractor=digits", "--metrics.num_samples=60", "--training.evaluate_every=2"]
    assert run(tmp_path / "run", *scored) == 0
    folder = RunFolder(tmp_path / "run")
    whole = [(row["step"], row["scores"]) for row in read_lines(folder.metrics)]
    # As if the kill had come in the evaluation of step 4: the checkpoint is there, the line and what follows isn't.
    write_lines(folder.metrics, read_lines(folder.metrics)[:-1])
    folder.scores.unlink()
    assert run(tmp_path / "run", *scored) == 0
    assert [(row["step"], row["scores"]) for row in read_lines(folder.metrics)] == whole
    assert folder.scores.exists()


def test_a_report_that_cannot_be_drawn_does_not_end_the_run(tmp_path, monkeypatch):
    def broken(*_args):
        raise RuntimeError("no font")

    monkeypatch.setattr("cs_gan.report.save_curve", broken)
    with pytest.warns(UserWarning, match="no font"):
        assert run(tmp_path / "run", "--metrics.extractor=digits", "--metrics.num_samples=60") == 0


def test_dry_run_prints_sizes_and_times_and_writes_nothing(tmp_path, capsys):
    assert run(tmp_path / "run", "--dry-run", "--metrics.extractor=digits", "--training.steps=1000") == 0
    out = capsys.readouterr().out
    for word in ("generator 16,985", "critic 717", "FLOPs", "memory", "1,000 steps take", "evaluations"):
        assert word in out, word
    assert not (tmp_path / "run").exists()


def test_unknown_and_missing_trackers_are_named(tmp_path, capsys):
    assert "tensorbord" in refused(capsys, tmp_path / "run", "--tracking.trackers=tensorbord")
    assert "pip install wandb" in refused(capsys, tmp_path / "run", "--tracking.trackers=wandb")


def test_training_on_coloured_folder_with_flips_and_paper_net(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(images / f"{i}.png")
    data = ["--data.name=folder", f"--data.root={images}", "--data.image_size=32", "--data.flip=true"]
    assert run(tmp_path / "run", *data, "--model.name=paper32", "--training.steps=1", "--training.decay=linear") == 0


def test_bf16_run_has_finite_losses(tmp_path):
    assert run(tmp_path / "run", *CODED, "--training.mixed_precision=bf16", "--training.steps=2") == 0


# -- resume ----------------------------------------------------------------------------------------


def test_resumed_run_equals_undisturbed_one_to_the_bit(tmp_path):
    assert run(tmp_path / "whole", *CODED) == 0
    assert run(tmp_path / "parts", *CODED) == 0
    # Go back to the checkpoint of step 2 as if the rest had never been.
    last = list_checkpoints(tmp_path / "parts" / "checkpoints")[-1]
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    assert run(tmp_path / "parts", *CODED) == 0
    assert states_equal(*(list_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("whole", "parts")))

    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


HELD = ["--coded.critic.share=0.1", "--coded.generator.share=0.02", "--coded.share_every=2"]


def test_a_held_share_is_logged_and_resumed_to_the_bit(tmp_path, capsys):
    more = [*CODED, *HELD, "--training.log_every=3", "--training.steps=12", "--training.checkpoint_every=5"]
    assert run(tmp_path / "whole", *more) == 0
    assert "critic coded at blocks.1, held at 0.1 of the gradient" in capsys.readouterr().out
    assert run(tmp_path / "parts", *more, "--training.max_minutes=0.0001") == 0
    while len(read_lines(tmp_path / "parts" / "log.jsonl")) < 4:
        assert run(tmp_path / "parts", *more) == 0
    assert states_equal(last(tmp_path / "whole"), last(tmp_path / "parts"))
    rows = losses(tmp_path / "whole")
    assert rows == losses(tmp_path / "parts")
    for part in ("critic", "generator"):
        assert all(row[f"{part}_share"] > 0 for row in rows)
        weights = [row[f"{part}_weight"] for row in rows]
        assert len(set(weights)) == len(weights)  # it follows


def test_the_share_is_measured_in_the_last_coded_step_before_a_line_of_the_log(tmp_path, monkeypatch):
    measured = []
    one_step = GanTask.one_step
    monkeypatch.setattr(
        GanTask,
        "one_step",
        lambda task, **inputs: (measured.append(task.measured), one_step(task, **inputs))[1],
    )
    fixed = [*CODED, "--coded.critic.weight=0.1", "--coded.generator.weight=0.1", "--coded.every=3"]
    assert run(tmp_path / "run", *fixed, "--training.steps=8", "--training.log_every=4") == 0
    # coded are steps 0, 3, 6, and lines follow steps 3 and 7
    assert measured == [dict.fromkeys(("generator", "critic"), step in (3, 6)) for step in range(8)]
    assert all("critic_share" in row for row in losses(tmp_path / "run"))


@pytest.mark.parametrize(
    ("weight", "said"), [("1e-9", "below 0.1 % of the gradient this is plain training"), ("1e9", "outweighs")]
)
def test_the_first_line_of_the_log_says_a_strength_that_means_nothing(tmp_path, capsys, weight, said):
    assert run(tmp_path / "run", "--coded.critic.blocks=blocks.1", f"--coded.critic.weight={weight}") == 0
    assert capsys.readouterr().out.count(said) == 1


def test_a_block_that_coding_only_shrinks_is_named_at_the_start_and_changes_no_bit(tmp_path, capsys, monkeypatch):
    affine = ["--coded.critic.blocks=blocks.1.0", "--coded.generator.blocks=blocks.0"]
    assert run(tmp_path / "run", *affine) == 0
    said = capsys.readouterr().out
    assert said.count("note: block 'blocks.1.0': the block is affine on this batch") == 1
    assert "note: block 'blocks.0'" not in said
    monkeypatch.setattr(GanTask, "useless_blocks", lambda *_: [])
    assert run(tmp_path / "unsaid", *affine) == 0
    assert states_equal(last(tmp_path / "run"), last(tmp_path / "unsaid"))


def test_log_lines_that_span_a_resume_average_all_their_steps(tmp_path):
    more = ["--training.log_every=3", "--training.steps=6", "--training.keep_checkpoints=9"]
    assert run(tmp_path / "run", *more) == 0
    before = read_lines(tmp_path / "run" / "log.jsonl")
    assert run(tmp_path / "run", *more, f"--resume={tmp_path}/run/checkpoints/step-00000004") == 0
    after = read_lines(tmp_path / "run" / "log.jsonl")
    assert [row["step"] for row in after] == [3, 6]
    assert [row["critic_loss"] for row in after] == [row["critic_loss"] for row in before]


def test_run_killed_before_its_first_checkpoint_starts_anew(tmp_path):
    assert run(tmp_path / "run", "--training.steps=2") == 0
    for path in list_checkpoints(tmp_path / "run" / "checkpoints"):
        path.rename(path.with_name(f".partial-{path.name}"))
    assert run(tmp_path / "run", "--training.steps=2") == 0
    assert [row["step"] for row in read_lines(tmp_path / "run" / "log.jsonl")] == [1, 2]


def test_other_seed_gives_another_run(tmp_path):
    assert run(tmp_path / "0") == 0
    assert run(tmp_path / "1", "--seed=1") == 0
    assert not states_equal(*(list_checkpoints(tmp_path / name / "checkpoints")[-1] for name in "01"))


def test_resume_with_another_recipe_is_refused_with_the_difference(tmp_path, capsys):
    assert run(tmp_path / "run") == 0
    assert run(tmp_path / "run", "--training.learning_rate=0.1") == 2
    assert "training.learning_rate: 0.0002 -> 0.1" in capsys.readouterr().err


def test_resume_on_other_images_is_refused(tmp_path, capsys):
    roots = [tmp_path / name for name in ("one", "two")]
    for value, root in enumerate(roots):
        root.mkdir()
        Image.fromarray(np.full((16, 16, 3), 100 * value, np.uint8)).save(root / "image.png")
    data = ["--data.name=folder", "--training.steps=2"]
    assert run(tmp_path / "run", *data, f"--data.root={roots[0]}") == 0
    assert run(tmp_path / "run", *data, f"--data.root={roots[1]}") == 2
    assert "images:" in capsys.readouterr().err


def test_more_steps_are_a_resume_unless_a_schedule_depends_on_them(tmp_path, capsys):
    assert run(tmp_path / "plain") == 0
    assert run(tmp_path / "plain", "--training.steps=6") == 0
    assert run(tmp_path / "coded", *CODED) == 0
    assert run(tmp_path / "coded", *CODED, "--training.steps=6") == 2
    assert "training.steps: 4 -> 6" in capsys.readouterr().err


def test_second_run_in_one_folder_is_refused(tmp_path, capsys):
    with RunFolder(tmp_path / "run").occupied():
        assert run(tmp_path / "run") == 2
    assert "still writing" in capsys.readouterr().err
    assert run(tmp_path / "run") == 0


def test_resume_never_refuses_to_overwrite(tmp_path, capsys):
    assert run(tmp_path / "run") == 0
    assert run(tmp_path / "run", "--resume=never") == 2
    assert "output_dir" in capsys.readouterr().err


def test_damaged_checkpoint_is_refused_and_the_one_before_offered(tmp_path, capsys):
    assert run(tmp_path / "run") == 0
    first, last = list_checkpoints(tmp_path / "run" / "checkpoints")
    tensors = last / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-100] ^= 1
    tensors.write_bytes(data)
    assert run(tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert str(tensors) in error
    assert f"--resume={first}" in error
    # The run goes on as offered, and the damaged checkpoint is out of the way of the next resume.
    assert run(tmp_path / "run", f"--resume={first}", "--training.steps=3") == 0
    assert [path.name for path in list_checkpoints(first.parent)] == ["step-00000002", "step-00000003"]
    assert run(tmp_path / "run") == 0


# -- what it refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--training.stepz=3", ["training.stepz", "training.steps"]),
        ("--training.steps=many", ["training.steps", "int", "many"]),
        ("--config=/nowhere/recipe.yaml", ["/nowhere/recipe.yaml"]),
        ("--model.name=dcgan17", ["dcgan17", "dcgan16"]),
        ("--model.name=dcgan32", ["--data.image_size=32", "dcgan32"]),
        ("--data.name=mnits", ["mnits", "mnist"]),
        ("--coded.critic.blocks=blocks.7", ["blocks.7", "blocks.1"]),
        ("--metrics.extractor=inception_v9", ["inception_v9", "efficientnet_lite0"]),
    ],
)
def test_unusable_argument_is_refused_at_once_and_named(tmp_path, capsys, argument, words):
    error = refused(capsys, tmp_path / "run", argument)
    assert all(word in error for word in words), error


def test_fp16_from_the_launcher_is_refused_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert "bf16" in refused(capsys, tmp_path / "run")


def test_accumulation_from_the_environment_is_refused_at_once(tmp_path, capsys, monkeypatch):
    """Accelerate would divide every loss by 4."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    error = refused(capsys, tmp_path / "run")
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4" in error
    assert "training.batch_size" in error


def test_too_small_a_ratio_is_refused_before_the_first_step(tmp_path, capsys):
    assert "N must be at least 2" in refused(capsys, tmp_path / "run", *CODED, "--coded.ratio_start=0.1")


def test_batch_of_one_is_refused_where_blocks_are_coded(tmp_path, capsys):
    assert "so K = 1" in refused(capsys, tmp_path / "run", *CODED, "--training.batch_size=1")


def test_missing_inception_weights_are_named_and_nothing_else_is_scored(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    error = refused(capsys, tmp_path / "run", "--metrics.extractor=inception")
    assert "weights-inception-2015-12-05-6726825d.pth" in error
    assert "efficientnet_lite0" in error


def test_missing_folder_empty_folder_and_truncated_jpeg_are_named(tmp_path, capsys):
    images = tmp_path / "images"
    folder = ["--data.name=folder", "--data.image_size=16", f"--data.root={images}"]
    assert str(images) in refused(capsys, tmp_path / "run", *folder)
    images.mkdir()
    assert ".jpg" in refused(capsys, tmp_path / "run", *folder)
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(images / "good.jpg")
    whole = (images / "good.jpg").read_bytes()
    (images / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    assert "broken.jpg" in refused(capsys, tmp_path / "run", *folder)


def test_nan_loss_stops_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path, capsys, monkeypatch):
    step = GanTask.step

    def poisoned(live, number):
        losses = step(live, number)
        return losses | {"critic_loss": losses["critic_loss"] * float("nan")} if number == 2 else losses

    monkeypatch.setattr(GanTask, "step", poisoned)
    assert run(tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "step 3" in error
    assert "critic_loss" in error
    kept = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert [path.name for path in kept] == ["step-00000002"]
    assert str(kept[0]) in error
    assert all(torch.isfinite(value).all() for value in read_checkpoint(kept[0])[0].values())


def test_weights_that_overflow_in_another_process_are_not_checkpointed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Session, "in_all", lambda session, flag: False)
    assert run(tmp_path / "run") == 2
    assert "not finite" in capsys.readouterr().err
    assert not list_checkpoints(tmp_path / "run" / "checkpoints")


def test_weights_that_overflow_are_never_checkpointed(tmp_path, capsys):
    # Adam's step is about the learning rate, so 1e30 overflows float32 within two steps.
    assert run(tmp_path / "run", "--training.learning_rate=1e30", "--training.checkpoint_every=1") == 2
    assert "not finite" in capsys.readouterr().err
    for path in list_checkpoints(tmp_path / "run" / "checkpoints"):
        assert all(torch.isfinite(value).all() for value in read_checkpoint(path)[0].values())


# -- processes and signals -------------------------------------------------------------------------


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def test_interrupt_ends_with_a_checkpoint(tmp_path):
    folder = tmp_path / "run"
    words = arguments(folder, "--training.steps=100000", "--training.checkpoint_every=0")
    started = Started(folder, *words, recipe={})
    (process,) = started.processes
    deadline = time.monotonic() + 120
    while len(read_lines(folder / "log.jsonl")) < 2:
        assert process.is_alive(), started.said()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert process.pid
    os.kill(process.pid, signal.SIGINT)
    assert started.code == 130
    assert "Ended early: SIGINT" in started.said()
    (kept,) = list_checkpoints(folder / "checkpoints")
    assert read_checkpoint(kept)[1]["step"] >= 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell a process of its parent's end")
def test_sigterm_to_the_launcher_alone_reaches_the_run(tmp_path):
    folder = tmp_path / "run"
    more = ["--training.steps=100000", "--training.checkpoint_every=0", "--config=configs/gan/quickstart.yaml"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=1", "train_gan.py"]
    command = [*launch, *more[2:], *arguments(folder, *more[:2])]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(read_lines(folder / "log.jsonl")) < 2:
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    while not list_checkpoints(folder / "checkpoints"):
        assert time.monotonic() < deadline + 60
        time.sleep(0.2)


def test_results_whose_checkpoints_are_gone_are_not_written_over(tmp_path, capsys):
    scored = ["--metrics.extractor=digits", "--metrics.num_samples=20"]
    assert run(tmp_path / "run", *scored) == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert run(tmp_path / "run", *scored, "--resume=never") == 2
    assert "checkpoints are gone" in capsys.readouterr().err
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("given", ["", "checkpoints", "checkpoints/step-00000003"])
def test_path_that_is_no_checkpoint_is_told_from_a_damaged_one(tmp_path, capsys, given):
    assert run(tmp_path / "run") == 0
    capsys.readouterr()
    assert run(tmp_path / "run", f"--resume={tmp_path / 'run' / given}") == 2
    error = capsys.readouterr().err
    assert "is no checkpoint" in error
    assert f"--resume={tmp_path / 'run' / 'checkpoints' / 'step-00000004'}" in error


@pytest.mark.usefixtures("pictures")
def test_run_that_is_not_scored_has_a_report_all_the_same(tmp_path):
    assert run(tmp_path / "run") == 0
    assert "critic loss" in (tmp_path / "run" / "report.html").read_text()


SHARED = ROOT.parent / "shared" / "data"


@pytest.mark.parametrize(
    ("name", "archive", "network", "split"),
    [("cifar10", "cifar10_jpeg.zip", "dcgan32", "test"), ("celeba", "celeba_6k.zip", "dcgan64", "train")],
)
def test_real_zip_is_trained_on_resumed_and_scored_in_place(tmp_path, name, archive, network, split):
    if not (SHARED / archive).exists():
        pytest.skip("real images are not part of the project")
    data = [f"--data.name={name}", f"--data.root={SHARED / archive}", f"--model.name={network}", "--data.limit=64"]
    # Each start of a scored run decodes the whole split, so there is one, and of CIFAR-10 it has the smaller split.
    scored = ["--metrics.extractor=digits", "--metrics.num_samples=20", f"--metrics.reference={split}"]
    assert run(tmp_path / "whole", *data, *scored, "--training.evaluate_every=2", *CODED) == 0
    assert run(tmp_path / "parts", *data, *CODED) == 0
    assert run(tmp_path / "parts", *data, *CODED, f"--resume={tmp_path}/parts/checkpoints/step-00000002") == 0
    assert states_equal(*(list_checkpoints(tmp_path / run / "checkpoints")[-1] for run in ("whole", "parts")))
    rows = read_lines(tmp_path / "whole" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 2, 4]
    about = json.loads((tmp_path / "whole" / "scores.json").read_text())["final"]["provenance"]
    assert (about["reference"]["data"], about["reference"]["count"]) == (name, 10_000 if split == "test" else 6_000)
    assert about["trained_on"]["count"] == 64


def test_time_limit_ends_with_a_grid_and_a_checkpoint(tmp_path, capsys):
    assert run(tmp_path / "run", "--training.steps=100000", "--training.max_minutes=0.02") == 0
    assert "time limit" in capsys.readouterr().out
    assert list_checkpoints(tmp_path / "run" / "checkpoints")


def test_a_run_in_pieces_of_a_time_limit_chooses_and_scores_as_in_one_piece(tmp_path):
    scored = ["--metrics.extractor=digits", "--metrics.num_samples=20", "--training.steps=5"]
    scored.append("--training.evaluate_every=2")
    assert run(tmp_path / "whole", *scored) == 0
    for _ in range(6):
        assert run(tmp_path / "pieces", *scored, "--training.max_minutes=1e-9") == 0
    whole, pieces = (
        [(row["step"], row["scores"]) for row in read_lines(RunFolder(tmp_path / name).metrics, METRICS_LINE)]
        for name in ("whole", "pieces")
    )
    assert pieces == whole
    assert [step for step, _ in whole] == [0, 2, 4, 5]
    whole, pieces = (read_snapshot(tmp_path / name / "best.safetensors") for name in ("whole", "pieces"))
    assert pieces.step == whole.step
    assert all(torch.equal(pieces.tensors[key], value) for key, value in whole.tensors.items())


def test_latents_differ_between_ranks_and_images_are_slices_of_one_order(tmp_path, monkeypatch):
    config = parse_config(GanConfig, arguments(tmp_path / "run"))
    with ExitStack() as stack:
        task = GanTask(Session(config, stack))
        alone = task.batch(0)
        monkeypatch.setattr(Session, "processes", 2)
        config.training.batch_size = 4
        latents, halves = [], []
        for rank in (0, 1):
            monkeypatch.setattr(Session, "rank", rank)
            latents.append(normal(task._inputs(0)["keys"][0, 0], 4, task.bare_generator.latent_dim))
            halves.append(task.batch(0))
    assert not torch.equal(*latents)
    assert torch.equal(torch.cat(halves), alone)  # flips and noise included: they belong to the image


@pytest.mark.parametrize(
    ("capabilities", "slow"),
    [({"avx2": True, "avx512_bf16": False}, True), ({"avx512_bf16": True}, False), ({"amx_bf16": True}, False)],
)
def test_bf16_on_a_cpu_that_has_none_is_said_to_be_slow(capabilities, slow, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    note = "without bfloat16 in hardware: training.mixed_precision=no is faster"
    for precision in ("no", "bf16"):
        assert run(tmp_path / precision, f"--training.mixed_precision={precision}", "--dry-run") == 0
        assert (note in capsys.readouterr().out) == (slow and precision == "bf16")


def test_launched_processes_that_did_not_join_are_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(session_module, "Accelerator", lambda **_: Accelerator())
    assert "docs/multi-gpu.md" in refused(capsys, tmp_path / "run")


@pytest.mark.parametrize("script", ["train_gan", "train_classifier"])
def test_two_processes_without_images_end_with_the_same_line(tmp_path, script):
    words = ["--data.name=folder", f"--data.root={tmp_path}", f"--output_dir={tmp_path / 'run'}"]
    printed = run_in_processes("tests.launched", WORLD, free_port(), script, *words, code=2)
    assert printed.count("error: ") == WORLD
    assert "Traceback" not in printed


@pytest.mark.parametrize("ended", ["done", "stopped"])
def test_no_thread_outlives_the_process_group(tmp_path, ended):
    """A thread of gloo that needs Python after its end aborts the process, which has done all its work."""
    limit = ["--training.max_minutes=0.0001"] if ended == "stopped" else []
    words = arguments(tmp_path / "run", *CODED, *limit)
    printed = run_in_processes("tests.launched", WORLD, free_port(), "train_gan", *words)
    assert printed.count("in the group: gloo_tcp_loop pt_gloo_runloop") == WORLD
    assert printed.count("at the end: none") == WORLD


def test_two_processes_train_and_only_the_first_writes(tmp_path):
    folder = tmp_path / "run"
    scored = ["--metrics.extractor=digits", "--metrics.num_samples=50", "--training.evaluate_every=2"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu_2.yaml"]
    command = [*launch, "train_gan.py", *arguments(folder, *CODED, *HELD, *scored)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 x cpu" in done.stderr + done.stdout
    assert done.stdout.count("Done.") == 1
    # Two writers would double the lines.
    assert [row["step"] for row in read_lines(folder / "log.jsonl")] == [1, 2, 3, 4]
    assert [row["step"] for row in read_lines(folder / "metrics.jsonl")] == [0, 2, 4]
    # One process scores what two have trained as both did together, batch norm's statistics included.
    rows = read_lines(folder / "metrics.jsonl")
    assert all(row["provenance"]["processes"] == 2 for row in rows)
    assert evaluate.main(["score", str(folder / "snapshot.safetensors"), f"--json={tmp_path / 'score.json'}"]) == 0
    alone = json.loads((tmp_path / "score.json").read_text())
    assert alone["provenance"]["processes"] == 1
    full = json.loads((folder / "scores.json").read_text())["final"]
    assert alone["scores"] == pytest.approx(full["scores"], rel=1e-5)
