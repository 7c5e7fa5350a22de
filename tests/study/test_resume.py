"""A study that was stopped, killed or changed goes on with what is missing, and counts nothing that isn't asked."""

import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from cs_gan.errors import ConfigError
from cs_gan.study.lock import held
from cs_gan.study.outcome import OUTPUT, read_outcome, record
from cs_gan.study.plan import plan, with_recipe_as_read
from cs_gan.study.spec import read_study

from .conftest import kill, launch, running, wait_for

GRID = {"mu": [0.1, 0.2, 0.3, 0.4]}


def test_each_run_gets_its_share_of_the_cores(bench, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("cs_gan.study.on_this_machine.usable_cores", lambda: 7)
    assert bench.study("--jobs=2", grid={"mu": [0.1]}) == 0
    assert {path.read_text().split()[0] for path in bench.folder.glob("runs/*/starts")} == {"3"}


def test_the_users_number_of_threads_is_kept(bench, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert bench.study("--jobs=2", grid={"mu": [0.1]}) == 0
    assert {path.read_text().split()[0] for path in bench.folder.glob("runs/*/starts")} == {"5"}


def test_after_a_kill_only_the_missing_runs_are_run(bench, capsys):
    slow = [f"mu=0.4-seed{seed}" for seed in (0, 1)]  # in the end both jobs are at them
    bench.write(grid=GRID, fixed=bench.held(*slow))
    process = launch(bench, "--jobs=2")
    wait_for(lambda: len(list(bench.folder.glob("runs/*/study.json"))) == 6 and len(running(bench)) == 2)
    kill(process)
    wait_for(lambda: not running(bench))  # on Linux the runs, which are held, end with it
    assert bench.study("--dry-run") == 0
    listed = capsys.readouterr().out
    assert "mu=0.1-seed0 (done)" in listed
    assert "mu=0.4-seed0 (to run)" in listed
    assert "4 points x 2 seeds = 8 runs, 6 done" in listed
    bench.release(*slow)
    assert bench.study() == 0
    assert bench.starts == {f"mu={mu}-seed{seed}": 1 + (mu == 0.4) for mu in GRID["mu"] for seed in (0, 1)}
    assert [line["n"] for line in bench.table] == ["2"] * 4


def test_a_run_that_outlives_its_study_is_waited_for(bench, capsys):
    bench.write(grid={"mu": [0.1]}, seeds=1)
    folder = bench.folder / "runs" / "mu=0.1-seed0"
    folder.mkdir(parents=True)
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print('held', flush=True); "
    hold += "time.sleep(0.3)"
    other = subprocess.Popen([sys.executable, "-c", hold, str(folder / ".lock")], stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    assert bench.study() == 0
    assert "waiting for another process that still writes to it" in capsys.readouterr().err
    other.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_all_runs_and_the_same_command_goes_on(bench, number, code):
    bench.write(grid=GRID, fixed={"seconds": 30})
    process = launch(bench, "--jobs=2")
    wait_for(lambda: len(running(bench)) == 2)
    process.send_signal(number)
    _, error = process.communicate(timeout=180)
    assert process.returncode == code
    assert "stopped with 8 runs left. The same command continues from here." in error
    assert not running(bench)
    assert "## Missing: 0 failed, 8 not run" in bench.markdown
    assert "seed 0 not run: stopped before its end" in bench.markdown


def test_two_studies_do_not_share_a_folder(bench, capsys):
    with held(bench.folder):
        assert bench.study(grid={"mu": [0.1]}) == 2
    assert "another study is still running" in capsys.readouterr().err
    assert bench.study() == 0


def test_points_that_left_the_file_stay_and_are_not_told_and_new_ones_are_run(bench):
    assert bench.study(grid={"mu": [0.1, 0.2]}) == 0
    assert bench.study(grid={"mu": [0.2, 0.3]}, seeds=3) == 0
    assert [(line["mu"], line["n"]) for line in bench.table] == [("0.2", "3"), ("0.3", "3")]
    assert bench.starts["mu=0.1-seed0"] == bench.starts["mu=0.2-seed0"] == 1
    assert len(bench.starts) == 2 * 1 + 2 * 3


def test_a_changed_setting_is_refused_at_once_and_old_scores_are_not_told(bench, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("alpha: 1")
    given = {"grid": {"mu": [0.1]}, "seeds": 1, "config": str(recipe)}
    assert bench.study(**given) == 0
    table = bench.table
    assert bench.study("--dry-run", **given, fixed={"alpha": 2}) == 0
    assert "mu=0.1-seed0 (made with other settings (alpha: 1 -> 2))" in capsys.readouterr().out
    assert bench.study("--summarise") == 2
    assert bench.table == table  # what was found isn't lost
    assert bench.study() == 2
    told = "error: 1 of 1 runs were made with other settings, such as "
    advice = "Give another --output to keep them, or delete their folders to run them again."
    error = capsys.readouterr().err
    assert told in error
    assert f"(alpha: 1 -> 2). {advice}" in error
    assert bench.study(**given) == 0
    assert bench.table[0]["n"] == "1"
    recipe.write_text("alpha: 3")  # a change of the recipe is noticed too
    assert bench.study() == 2
    assert "(alpha: 1 -> 3)" in capsys.readouterr().err
    assert bench.starts == {"mu=0.1-seed0": 1}


def test_settings_that_change_no_result_keep_what_is_done_and_how_long_it_took(bench):
    settings = {"data.root": "a", "training.log_every": 10, "tracking.trackers": "none", "training.evaluate_every": 5}
    assert bench.study(grid={"mu": [0.1]}, seeds=1, fixed=settings) == 0
    [row] = bench.table
    elsewhere = settings | {"data.root": "b", "training.log_every": 20, "tracking.trackers": "wandb"}
    assert bench.study(grid={"mu": [0.1]}, seeds=1, fixed=elsewhere) == 0
    assert bench.starts == {"mu=0.1-seed0": 1}
    assert bench.table == [row]
    # From how many evaluations the best network is chosen, and which folder of images it is, change the result.
    assert bench.study(fixed=settings | {"training.evaluate_every": 1}, grid={"mu": [0.1]}, seeds=1) == 2
    assert bench.study(fixed=settings | {"data.name": "folder"}, grid={"mu": [0.2]}, seeds=1) == 0
    assert bench.study(fixed=elsewhere | {"data.name": "folder"}, grid={"mu": [0.2]}, seeds=1) == 2
    assert bench.starts == {"mu=0.1-seed0": 1, "mu=0.2-seed0": 1}


def test_a_run_that_failed_before_its_first_checkpoint_may_have_other_settings(bench):
    assert bench.study(grid={"mu": [0.1]}, seeds=1, fixed={"fial": "no"}) == 2
    assert bench.study(grid={"mu": [0.1]}, seeds=1, fixed={"fail": "no"}) == 0


def test_folders_that_no_run_claims_are_noted(bench, capsys):
    assert bench.study(grid={"mu": [0.1]}, seeds=1) == 0
    assert "note" not in capsys.readouterr().err
    assert bench.study(grid={"mu": [0.2, 0.3]}, seeds=1) == 0
    assert f"note: no run of this study is in {bench.folder}/runs/mu=0.1-seed0.\n" in capsys.readouterr().err
    assert bench.study(grid={"mu": [0.3]}, seeds=1) == 0
    assert "mu=0.1-seed0, or in 1 more folders there." in capsys.readouterr().err


def test_summarise_tells_of_what_is_there_and_runs_nothing(bench):
    assert bench.study(grid={"mu": [0.1, 0.2]}) == 0
    for name in ("table.csv", "table.md", "results.json"):
        (bench.folder / name).unlink()
    assert bench.study("--summarise", grid={"mu": [0.1, 0.2, 0.3]}) == 0
    assert [line["n"] for line in bench.table] == ["2", "2", "0"]
    assert bench.table[2]["problems"] == "seed 0, 1 not run"
    assert len(bench.starts) == 4


def test_a_run_without_scores_or_short_of_its_steps_is_not_done(bench):
    assert bench.study(grid={"mu": [0.1, 0.2]}, seeds=1) == 0
    folder = bench.folder / "runs"
    (folder / "mu=0.1-seed0" / "scores.json").unlink()
    (folder / "mu=0.2-seed0" / "config.yaml").write_text("training: {steps: 9}")
    assert bench.study("--summarise") == 0
    assert [line["problems"] for line in bench.table] == [
        "seed 0 failed: it left no scores.json, step 3 of 3",
        "seed 0 failed: scored at step 3, but 9 are requested",
    ]
    assert bench.study() == 0
    assert set(bench.starts.values()) == {2}


def test_an_edit_of_the_recipe_does_not_change_runs_that_start_later(bench, tmp_path):
    recipe = tmp_path / "recipe_of_mine.yaml"
    recipe.write_text("mu: 0.3\n")
    bench.write(config=str(recipe), grid={"alpha": [1]})
    study = read_study(bench.file)
    runs = plan(study, bench.folder)
    frozen = with_recipe_as_read(study, runs, bench.folder)
    recipe.write_text("mu: 0.9\n")
    copy = bench.folder / "recipe.yaml"
    assert copy.read_text() == "mu: 0.3\n"
    assert all(f"--config={copy}" in run.command and f"--config={recipe}" not in run.command for run in frozen)
    with pytest.raises(ConfigError, match="was changed while the study started"):
        with_recipe_as_read(study, runs, bench.folder)
    assert bench.study() == 0  # with the recipe as it is now
    assert copy.read_text() == "mu: 0.9\n"
    assert all(f'"config": "{copy}"' in path.read_text() for path in bench.folder.glob("runs/*/asked"))


def test_a_longer_run_that_is_refused_leaves_the_finished_one(bench):
    bench.write(grid={"mu": [0.1]}, seeds=1)
    [run] = plan(read_study(bench.file), bench.folder)
    assert bench.study() == 0
    before = read_outcome(run)
    longer = replace(run, asked=run.asked | {"training.steps": 40})
    (run.folder / OUTPUT).write_text("error: it belongs to another recipe\n")
    record(longer, 2, 5.0, 0)
    now = read_outcome(longer)
    assert now.status == "not run"
    assert now.reason == ("made with other settings (training.steps: None -> 40). error: it belongs to another recipe")
    assert read_outcome(run) == before
    assert before.status == "done"
