"""What faults do to a run: killed anywhere it goes on to the same bits; what it can't survive it refuses, by name.

docs/faults.md lists the faults, each with the test that shows what happens.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

import cs_gan.training.resume as resume_module
import train_gan
from benchmarks.killed_run import alive
from benchmarks.same_runs import compare
from cs_gan.runs import RunFolder, read_lines
from cs_gan.training import list_checkpoints, read_checkpoint, read_snapshot
from tasks.gan import task as gan_task
from tests.reliability.child import Fault
from tests.reliability.runs import STEPS, Started, arguments, assert_same, finish, kill, remount, small_disk

pytestmark = pytest.mark.usefixtures("signal_handlers_as_before", "without_pictures")


ROOT = Path(__file__).parents[1]
LOOP, CHECKPOINT, EVALUATOR = "cs_gan.training.loop", "cs_gan.training.checkpoint", "cs_gan.metrics.evaluator"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run; only ever read."""
    return finish(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was killed in its seventh step, after the checkpoint of step 6; to be copied."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    kill(folder, Fault("tasks.gan.task:generator_step", call=7))
    return folder


@pytest.fixture(scope="module")
def whole_of_two(tmp_path_factory):
    """An undisturbed run in two processes."""
    return finish(tmp_path_factory.mktemp("two") / "run", processes=2)


def steps_saved(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in list_checkpoints(folder / "checkpoints")]


# -- killed ----------------------------------------------------------------------------------------

STAGES = {
    "steps": [
        Fault("tasks.gan.task:GanTask.step", call=4),  # amid an epoch
        Fault("tasks.gan.task:generator_step", call=3),  # between the critic's step and the generator's
        Fault(f"{LOOP}:append_line", "log.jsonl"),
        Fault(f"{LOOP}:append_line", "log.jsonl", after=True),
        Fault("tasks.gan.task:save_grid", "step-00000006"),  # after its checkpoint, where no evaluation is due
    ],
    "saving": [
        Fault("tasks.image_task:save_snapshot", "/snapshot.safetensors", call=2, after=True),
        Fault(f"{CHECKPOINT}:save_file", "partial-00000004"),
        Fault(f"{CHECKPOINT}:save_file", "partial-00000004", after=True),
        Fault("pathlib:Path.write_text", "partial-00000004/state.json", after=True),
        Fault("pathlib:Path.write_text", "partial-00000004/manifest.json", after=True),
        Fault("pathlib:Path.rename", "partial-00000004"),
        Fault("pathlib:Path.rename", "partial-00000004", after=True),
        Fault("pathlib:Path.rename", "pruned-step-00000002"),
        Fault("pathlib:Path.rename", "pruned-step-00000002", after=True),
        Fault("os:unlink", "'tensors.safetensors'", after=True),  # amid the removal of a pruned one
    ],
    "evaluating": [
        Fault(f"{EVALUATOR}:generated_images"),  # before the first step
        Fault("os:replace", "best.safetensors"),
        Fault(f"{LOOP}:append_line", "metrics.jsonl"),
        Fault(f"{EVALUATOR}:generated_images", call=2),  # after step 4
        Fault("os:replace", "best.safetensors"),  # when it is made up for
        Fault(f"{LOOP}:append_line", "metrics.jsonl"),
        Fault(f"{LOOP}:append_line", "metrics.jsonl", after=True),
        Fault("tasks.gan.task:save_grid", "step-00000008"),
    ],
    "finishing": [
        Fault(f"{EVALUATOR}:generated_images", call=4),  # after the last step, which no period meets
        Fault(f"{LOOP}:append_line", "metrics.jsonl"),
        Fault(f"{LOOP}:append_line", "metrics.jsonl", after=True),  # of the best: no later one hides its loss
        Fault(f"{EVALUATOR}:generated_images"),  # the full score
        Fault(f"{LOOP}:write_whole", "scores.json"),
        Fault(f"{LOOP}:write_whole", "scores.json", after=True),
    ],
}


@pytest.mark.parametrize("stage", STAGES)
def test_run_killed_at_each_point_equals_the_undisturbed_one(stage, tmp_path, whole):
    """One kill after the other in the same run, each start going on from what the last kill left."""
    for fault in STAGES[stage]:
        kill(tmp_path / "run", fault)
    assert_same(whole, finish(tmp_path / "run"))


def test_run_killed_while_threads_prepare_batches_equals_the_undisturbed_one(tmp_path, whole):
    for fault in STAGES["steps"][:2]:
        kill(tmp_path / "run", fault, "--data.workers=2")
    assert_same(whole, finish(tmp_path / "run", "--data.workers=2"))


def test_half_a_line_that_a_kill_left_is_written_anew(tmp_path, whole, killed):
    folder = shutil.copytree(killed, tmp_path / "run")
    for name in ("log.jsonl", "metrics.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"step": 6, "sc')
    assert_same(whole, finish(folder))


def test_comparison_tells_a_single_flipped_bit(tmp_path, whole, killed):
    other = shutil.copytree(whole, tmp_path / "run")
    grid = sorted((other / "grids").iterdir())[0]
    grid.write_bytes(grid.read_bytes()[:-1] + b"\0")
    lines = (other / "log.jsonl").read_text()
    (other / "log.jsonl").write_text(re.sub(r"\d(?=, \"gradient_penalty)", lambda m: str((int(m[0]) + 1) % 10), lines))
    rows = compare(RunFolder(whole), RunFolder(other))
    assert [row[0] for row in rows if not row[2]] == ["log.jsonl, all but the speed", "grids"]


# -- what else can happen to a folder --------------------------------------------------------------


def test_folder_that_was_moved_goes_on(tmp_path, whole, killed):
    assert_same(whole, finish(shutil.copytree(killed, tmp_path / "elsewhere" / "moved")))


def test_deleted_metrics_and_torn_config_come_back(tmp_path, whole, killed):
    folder = shutil.copytree(killed, tmp_path / "run")
    (folder / "metrics.jsonl").unlink()
    (folder / "config.yaml").write_text("training:\n  ste")
    assert_same(whole, finish(folder))
    assert (folder / "config.yaml").read_text().count("\n") == (whole / "config.yaml").read_text().count("\n")


def test_deleted_log_begins_where_the_run_goes_on(tmp_path, whole, killed):
    folder = shutil.copytree(killed, tmp_path / "run")
    (folder / "log.jsonl").unlink()
    finish(folder)
    assert_same(whole, folder, but=["log.jsonl, all but the speed"])
    assert [row["step"] for row in read_lines(folder / "log.jsonl")] == [STEPS]


def test_damaged_line_of_a_log_is_named(tmp_path, killed, capsys):
    folder = shutil.copytree(killed, tmp_path / "run")
    (folder / "log.jsonl").write_text('{"step": 3}\n{"st\n')
    assert train_gan.main(arguments(folder)) == 2
    assert "log.jsonl, line 2, is damaged" in capsys.readouterr().err


def test_older_checkpoint_and_then_auto_equal_the_undisturbed_run(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    older = folder / "checkpoints" / "step-00000008"
    kill(folder, Fault("tasks.gan.task:GanTask.step"), f"--resume={older}")
    assert steps_saved(folder) == [8]
    assert not (folder / "scores.json").exists()  # of the end that was given up
    assert_same(whole, finish(folder))


def test_network_of_an_abandoned_end_is_not_scored_as_the_best(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    best = read_snapshot(folder / "best.safetensors")
    assert best.step == STEPS  # or the test shows nothing
    # Continuing from step 8 without an evaluation at 9 better than the one at 4, the best network is nowhere any more.
    older = folder / "checkpoints" / "step-00000008"
    state = json.loads((older / "state.json").read_text())
    trained = state["metrics"][1]
    trained["scores"][trained["primary"]] = 0.0
    (older / "state.json").write_text(json.dumps(state))
    manifest = json.loads((older / "manifest.json").read_text())
    manifest["state.json"] = hashlib.sha256((older / "state.json").read_bytes()).hexdigest()
    (older / "manifest.json").write_text(json.dumps(manifest))
    finish(folder, f"--resume={older}")
    assert set(json.loads((folder / "scores.json").read_text())) == {"final"}


def test_checkpoint_of_another_folder_begins_a_run_here(tmp_path, whole, killed):
    """What the new folder can't have, it goes without: the best network so far and the earlier log."""
    start = killed / "checkpoints" / "step-00000006"
    folder = finish(tmp_path / "fork", f"--resume={start}")
    assert_same(whole, folder, but=["log.jsonl, all but the speed", "grids"])
    assert steps_saved(killed) == [4, 6]


# -- signals ---------------------------------------------------------------------------------------


def test_sigterm_finishes_the_step_saves_and_resumes_to_the_bit(tmp_path, whole):
    started = Started(tmp_path / "run", fault=Fault("tasks.gan.task:generator_step", call=3, what="signal:SIGTERM"))
    assert started.code == 143
    assert "Ended early: SIGTERM" in started.said()
    assert steps_saved(tmp_path / "run") == [2, 3]
    assert_same(whole, finish(tmp_path / "run"))


def test_second_signal_ends_at_once_and_the_last_checkpoint_stands(tmp_path, whole):
    started = Started(tmp_path / "run", fault=Fault("tasks.gan.task:generator_step", call=4, what="signals:SIGTERM"))
    assert started.code == 130
    assert "the last checkpoint stands" in started.said()
    assert steps_saved(tmp_path / "run") == [2]
    assert_same(whole, finish(tmp_path / "run"))


def test_sigterm_during_an_evaluation_ends_at_once_and_the_resume_makes_up_for_it(tmp_path, whole):
    fault = Fault(f"{EVALUATOR}:generated_images", call=2, what="signal:SIGTERM")
    started = Started(tmp_path / "run", fault=fault)
    assert started.code == 143
    assert steps_saved(tmp_path / "run") == [2, 4]
    assert [row["step"] for row in read_lines(tmp_path / "run" / "metrics.jsonl")] == [0]
    assert_same(whole, finish(tmp_path / "run"))


# -- disks -----------------------------------------------------------------------------------------


def test_full_disk_while_saving_keeps_the_last_checkpoint_and_goes_on_when_there_is_room(tmp_path, whole):
    with small_disk(tmp_path / "disk", "850k") as disk:
        started = Started(disk / "run")
        assert started.code == 2
        assert "can't write the checkpoint" in started.said() or "can't write the snapshot" in started.said()
        assert "make room" in started.said()
        assert "Traceback" not in started.said()
        (last,) = steps_saved(disk / "run")[-1:]
        read_checkpoint(disk / "run" / "checkpoints" / f"step-{last:08d}")
        remount(disk, "size=64m")
        assert_same(whole, finish(disk / "run"))


@pytest.mark.parametrize(
    ("target", "about"),
    [("append_line", "log.jsonl"), ("append_line", "metrics.jsonl"), ("write_whole", "scores.json")],
)
def test_full_disk_while_writing_a_log_is_named_and_goes_on_when_there_is_room(target, about, tmp_path, whole):
    with small_disk(tmp_path / "disk", "16m") as disk:
        started = Started(disk / "run", fault=Fault(f"{LOOP}:{target}", about, what=f"fill:{disk}/ballast"))
        assert started.code == 2
        assert f"can't write {disk}/run/{about}: No space left" in started.said()
        assert "Traceback" not in started.said()
        (disk / "ballast").unlink()
        assert_same(whole, finish(disk / "run"))


def test_full_disk_while_writing_a_grid_is_named_and_goes_on_when_there_is_room(tmp_path, whole):
    with small_disk(tmp_path / "disk", "16m") as disk:
        fault = Fault("tasks.gan.task:save_grid", "step-00000004", what=f"fill:{disk}/ballast")
        started = Started(disk / "run", fault=fault)
        assert started.code == 2
        assert f"can't write {disk}/run/grids: No space left" in started.said()
        assert "Traceback" not in started.said()
        assert steps_saved(disk / "run") == [2, 4]
        (disk / "ballast").unlink()
        assert_same(whole, finish(disk / "run"))


def test_full_disk_while_drawing_the_report_is_a_warning(tmp_path):
    with small_disk(tmp_path / "disk", "16m") as disk:
        fault = Fault("cs_gan.report:save_metrics_csv", call=4, what=f"fill:{disk}/ballast")
        more = ["--metrics.final_samples=null", "--training.evaluate_every=3", "--training.checkpoint_every=3"]
        started = Started(disk / "run", *more, fault=fault)
        # After the last step scores.json is still to be written, on the disk that is full.
        assert started.code == 2
        assert "couldn't be drawn" in started.said()
        assert "scores.json: No space left" in started.said()


def test_read_only_folder_is_refused(tmp_path):
    with small_disk(tmp_path / "disk", "16m") as disk:
        finish(disk / "run", "--training.steps=2")
        remount(disk, "ro")
        started = Started(disk / "run", "--training.steps=2")
        assert started.code == 2
        assert f"output_dir={disk}/run can't be written" in started.said()
        assert "Read-only file system" in started.said()


# -- damaged checkpoints ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
def test_damaged_checkpoint_file_is_refused_by_name_and_nothing_is_loaded(
    name, damage, tmp_path, whole, capsys, monkeypatch
):
    folder = shutil.copytree(whole, tmp_path / "run")
    before, last = list_checkpoints(folder / "checkpoints")
    file, content = last / name, (last / name).read_bytes()
    half = len(content) // 2
    file.unlink()
    if damage != "missing":
        flipped = bytes([content[half] ^ 1])
        file.write_bytes(content[:half] + (flipped + content[half + 1 :] if damage == "flipped" else b""))

    monkeypatch.setattr(resume_module, "restore", lambda *_: pytest.fail("something was loaded"))
    assert train_gan.main(arguments(folder)) == 2
    error = capsys.readouterr().err
    # A flipped bit in the manifest is in the hash of a file, and it is that file which doesn't match.
    assert str(file) in error or (name == "manifest.json" and str(last) in error)
    assert f"--resume={before}" in error
    assert "Traceback" not in error


# -- data ------------------------------------------------------------------------------------------


def folder_of_images(path: Path, count: int) -> list[str]:
    path.mkdir()
    for i in range(count):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 16), dtype=np.uint8)).save(path / f"{i:03}.png")
    return ["--data.name=folder", f"--data.root={path}", "--data.channels=1", "--metrics.extractor=none"]


@pytest.mark.parametrize("count", [65, 5])
def test_no_batch_is_short_where_images_do_not_divide_by_it_or_are_fewer(count, tmp_path, monkeypatch):
    """Batches cross the borders of epochs: 65 images in batches of 64 leave no batch of one."""
    sizes = []
    critic_step = gan_task.critic_step
    monkeypatch.setattr(
        gan_task, "critic_step", lambda *a, **k: sizes.append((len(a[2]), len(a[3]))) or critic_step(*a, **k)
    )
    data = [*folder_of_images(tmp_path / "images", count), "--training.batch_size=64", "--training.steps=2"]
    assert train_gan.main(arguments(tmp_path / "run", *data)) == 0
    assert sizes == [(64, 64)] * 4


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_broken_or_empty_image_file_is_named(content, tmp_path, capsys):
    data = folder_of_images(tmp_path / "images", 2)
    (tmp_path / "images" / "broken.png").write_bytes(content)
    assert train_gan.main(arguments(tmp_path / "run", *data)) == 2
    error = capsys.readouterr().err
    assert "broken.png" in error
    assert "Traceback" not in error


# -- several processes -----------------------------------------------------------------------------


def test_killed_process_ends_the_other_and_the_run_resumes_to_the_bit(tmp_path, whole_of_two):
    for rank, fault in ((1, "tasks.gan.task:generator_step"), (0, f"{CHECKPOINT}:save_file")):
        start = time.monotonic()
        started = Started(tmp_path / "run", processes=2, fault=Fault(fault, call=3, rank=rank))
        codes = started.wait(seconds=60)
        assert codes[rank] == -9
        assert codes[1 - rank] not in (0, None), "the other one goes on waiting"
        assert time.monotonic() - start < 60
    assert_same(whole_of_two, finish(tmp_path / "run", processes=2))


def test_sigterm_to_one_process_of_two_ends_both_after_the_same_step(tmp_path, whole_of_two):
    fault = Fault("tasks.gan.task:generator_step", call=4, what="signal:SIGTERM", rank=1)  # an evaluation is due then
    started = Started(tmp_path / "run", processes=2, fault=fault)
    assert started.wait() == [143, 143]
    assert steps_saved(tmp_path / "run") == [2, 4]
    assert_same(whole_of_two, finish(tmp_path / "run", processes=2))


def test_nan_in_one_process_of_two_ends_both_with_the_same_error(tmp_path):
    fault = Fault("tasks.gan.task:GanTask.step", call=3, after=True, what="nan", rank=1)
    started = Started(tmp_path / "run", processes=2, fault=fault)
    assert started.wait() == [2, 2]
    errors = [re.findall("^error: .*", started.said(rank), re.MULTILINE) for rank in (0, 1)]
    assert errors[0] == errors[1]
    assert "step 3" in errors[0][0]
    assert steps_saved(tmp_path / "run") == [2]


def test_other_number_of_processes_is_refused(tmp_path, whole_of_two, capsys):
    folder = shutil.copytree(whole_of_two, tmp_path / "run")
    assert train_gan.main(arguments(folder)) == 2
    assert "processes: 2 -> 1" in capsys.readouterr().err


def test_torchrun_ends_within_a_minute_of_a_kill_and_the_run_resumes_to_the_bit(tmp_path, whole_of_two, capsys):
    folder = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    process = subprocess.Popen(
        [*launch, "train_gan.py", *arguments(folder)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 180
    while not list_checkpoints(folder / "checkpoints"):
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    ranks = psutil.Process(process.pid).children(recursive=True)
    next(rank for rank in ranks if rank.environ().get("RANK") == "1").kill()
    start = time.monotonic()
    assert process.wait(timeout=60) != 0
    assert not any(alive(rank) for rank in ranks)
    with capsys.disabled():
        print(f"\ntorchrun and the other process ended {time.monotonic() - start:.1f} s after the kill")
    # Grids drawn under torchrun are of full size, those of the forked processes smaller.
    assert_same(whole_of_two, finish(folder, processes=2), but=["grids"])


# -- the table -------------------------------------------------------------------------------------


def test_every_test_that_the_fault_table_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "faults.md").read_text()))
    defined = {name for path in ROOT.glob("tests/**/*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    assert len(named) > 25
    assert named - defined == set()
