"""Every executor leaves the same folder; a sweep that was killed goes on with any of them, and nothing is run twice."""

import re
import signal
import sys

import pytest
import yaml

from cs_gan.sweep.executors import read_options

from .conftest import launch, running, wait_for

GRID = {"mu": [0.1, 0.2, 0.3]}
EXECUTORS = {
    "local": ["--executor=local", "--jobs=2"],
    "ray": ["--executor=ray"],
    "slurm": ["--executor=slurm", "--jobs=2", "--executor-options", "cluster=local"],
}


@pytest.fixture(params=EXECUTORS)
def executor(request):
    pytest.importorskip({"local": "yaml", "ray": "ray", "slurm": "submitit"}[request.param])
    return EXECUTORS[request.param]


def without_time(table):
    return [{key: value for key, value in line.items() if key != "seconds"} for line in table]


@pytest.fixture
def uninterrupted(bench, tmp_path):
    """The table of the same sweep, run in one go."""
    other = type(bench)(tmp_path / "other")
    other.file.parent.mkdir()
    assert other.sweep(grid=GRID) == 0
    return without_time(other.table)


def test_a_sweep_that_is_killed_goes_on_and_gives_the_same_table(bench, executor, uninterrupted, monkeypatch):
    bench.write(grid=GRID)
    monkeypatch.setenv("STUB_SLOW_MU", "0.2")
    monkeypatch.setenv("STUB_SLOW_SECONDS", "15")
    process = launch(bench, *executor)
    wait_for(lambda: recorded(bench) and "mu=0.2-seed0" in bench.starts)
    process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):  # not read to their ends, which jobs that go on keep open
        pipe.close()
    if "--executor=slurm" not in executor:  # whose jobs outlive it
        wait_for(lambda: not running(bench), seconds=10)
    before = recorded(bench)
    assert "mu=0.2-seed0" not in before
    monkeypatch.delenv("STUB_SLOW_MU")
    assert bench.sweep(*executor) == 0
    assert without_time(bench.table) == uninterrupted
    assert all(bench.starts[name] == 1 for name in before)
    if "--executor=slurm" in executor:  # the jobs that it found were waited for
        assert set(bench.starts.values()) == {1}
        assert len(list((bench.folder / "slurm").glob("*_submitted.pkl"))) == 6
    else:
        assert bench.starts["mu=0.2-seed0"] == 2


def recorded(bench):
    return {path.parent.name for path in bench.folder.glob("runs/*/sweep.json")}


def test_a_signal_lets_runs_save_under_any_executor(bench, executor):
    bench.write(grid=GRID, fixed={"steps": 1000, "seconds": 100})
    process = launch(bench, *executor)
    wait_for(lambda: len({path.parents[1] for path in bench.folder.glob("runs/*/checkpoints/step-*2")}) >= 2)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "stopped with 6 runs left. The same command continues from here." in error
    assert not running(bench)
    for line in bench.table[:2]:  # two at a time, the first seed of each point first
        assert re.match(
            r"seed 0 not run: stopped before its end, step \d+ of 1000 [|] seed 1 not run$", line["problems"]
        )
    assert all(line["failed"] == "0" for line in bench.table)


def test_an_error_of_a_run_is_told_under_any_executor(bench, executor):
    assert bench.sweep(*executor, grid={"mu": [0.1], "fail": ["no", "yes", "kill"]}, seeds=1) == 2
    told = [line["problems"] for line in bench.table]
    lost = "seed 0 failed: without a word (killed by SIGKILL)"
    assert told == ["", "seed 0 failed: RuntimeError: the stub fails", lost]


@pytest.mark.parametrize(("package", "extra"), [("ray", "ray"), ("submitit", "slurm")])
def test_a_package_that_is_missing_is_told_with_how_to_get_it(bench, capsys, monkeypatch, package, extra):
    monkeypatch.setitem(sys.modules, package, None)  # makes its import fail
    assert bench.sweep(f"--executor={extra}", grid=GRID) == 2
    assert f"pip install {package}, or pip install 'cs-gan[{extra}]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor=ray", "--executor-options", "num_gpu=1"], "Did you mean num_gpus?"),
        (["--executor-options", "num_gpus=1"], "--executor local has no such option. There are none."),
        (["--executor=slurm", "--executor-options", "cluster=local", "walltime=1"], "walltime"),
        (["--executor=slurm", "--executor-options", "cluster"], "write key=value"),
        (["--executor=slurm"], "submitit reports: Could not detect"),
    ],
)
def test_options_that_an_executor_does_not_know_are_refused(bench, capsys, words, said):
    if "--executor=ray" in words or "--executor=slurm" in words:
        pytest.importorskip("submitit" if "--executor=slurm" in words else "ray")
    assert bench.sweep(*words, grid=GRID) == 2
    assert said in capsys.readouterr().err
    assert not bench.starts


def test_options_are_read_as_yaml():
    assert read_options(["a=1", "b=0.5", "c=x=y", "d=[1, 2]"]) == {"a": 1, "b": 0.5, "c": "x=y", "d": [1, 2]}
    assert yaml.safe_load("on") is True  # so that a user who writes it gets what YAML says
