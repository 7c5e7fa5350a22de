"""Every executor leaves the same folder; a study that was killed goes on with any of them, and nothing is run twice."""

import json
import re
import signal
import sys

import pytest
import yaml

from cs_gan.study.executors import read_options

from .conftest import Bench, kill, launch, running, wait_for

GRID = {"mu": [0.1, 0.2, 0.3]}
SMALL = {"mu": [0.1, 0.2]}
EXECUTORS = {
    "local": ["--executor=local", "--jobs=2"],
    "ray": ["--executor=ray"],
    "slurm": ["--executor=slurm", "--jobs=2", "--executor-options", "cluster=local"],
}


@pytest.fixture(params=EXECUTORS, scope="module")  # of a module: the tests of Ray follow each other
def executor(request):
    pytest.importorskip({"local": "yaml", "ray": "ray", "slurm": "submitit"}[request.param])
    return EXECUTORS[request.param]


@pytest.fixture
def on_any(executor, request):
    """With Ray, the cluster of all tests: starting one for this study, as another test does, takes seconds."""
    if "--executor=ray" in executor:
        request.getfixturevalue("on_cluster")


def without_time(table):
    return [{key: value for key, value in line.items() if key != "seconds"} for line in table]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The table of the study that is killed, run in one go."""
    bench = Bench(tmp_path_factory.mktemp("uninterrupted"))
    assert bench.study(grid=SMALL) == 0
    return without_time(bench.table)


def test_a_study_that_is_killed_goes_on_and_gives_the_same_table(bench, executor, uninterrupted, request):
    first, second, third, last = (f"mu={mu}-seed{seed}" for seed in (0, 1) for mu in SMALL["mu"])
    bench.write(grid=SMALL, fixed=bench.held(second, third))
    process = launch(bench, *executor)
    wait_for(lambda: finished(bench) == {first} and bench.starts == dict.fromkeys((first, second, third), 1))
    kill(process)
    if "--executor=slurm" not in executor:  # whose jobs outlive it
        wait_for(lambda: not running(bench))
    assert finished(bench) == {first}
    bench.release(third)
    if "--executor=ray" in executor:  # the first start had a Ray of its own
        request.getfixturevalue("on_cluster")
    process = launch(bench, *executor)
    wait_for(lambda: finished(bench) == {first, third, last})
    bench.release(second)
    _, error = process.communicate(timeout=180)
    assert process.returncode == 0, error
    assert without_time(bench.table) == uninterrupted
    again = [name for name, starts in bench.starts.items() if starts > 1]
    if "--executor=slurm" in executor:  # the jobs that it found were waited for
        assert not again
        assert len(list((bench.folder / "slurm").glob("*_submitted.pkl"))) == 4
    else:
        assert set(again) == {second, third}
        assert bench.starts[second] == bench.starts[third] == 2


def finished(bench):
    """Runs recorded as finished. A process of Ray may outlive the killed study for long enough to record a stop."""
    records = {path.parent.name: json.loads(path.read_text()) for path in bench.folder.glob("runs/*/study.json")}
    return {name for name, record in records.items() if record["exit_code"] == 0}


def test_a_signal_lets_runs_save_under_any_executor(bench, executor, on_any):
    bench.write(grid=GRID, fixed={"steps": 1000, "seconds": 100})
    process = launch(bench, *executor)
    wait_for(lambda: len({path.parents[1] for path in bench.folder.glob("runs/*/checkpoints/step-*2")}) >= 2)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=180)
    assert process.returncode == 143
    assert "stopped with 6 runs left. The same command continues from here." in error
    assert not running(bench)
    for line in bench.table[:2]:  # two at a time, the first seed of each point first
        assert re.match(
            r"seed 0 not run: stopped before its end, step \d+ of 1000 [|] seed 1 not run$", line["problems"]
        )
    assert all(line["failed"] == "0" for line in bench.table)


def test_an_error_of_a_run_is_told_under_any_executor(bench, executor, on_any):
    assert bench.study(*executor, grid={"mu": [0.1], "fail": ["no", "yes", "kill"]}, seeds=1) == 2
    told = [line["problems"] for line in bench.table]
    lost = "seed 0 failed: without a word (killed by SIGKILL)"
    assert told == ["", "seed 0 failed: RuntimeError: the stub fails", lost]
    output = (bench.folder / "runs" / "mu=0.1,fail=yes-seed0" / "output.txt").read_text()
    assert output.startswith(f"$ {sys.executable} ")
    assert "a first line" in output


@pytest.mark.parametrize(("package", "extra"), [("ray", "ray"), ("submitit", "slurm")])
def test_a_package_that_is_missing_is_told_with_how_to_get_it(bench, capsys, monkeypatch, package, extra):
    monkeypatch.setitem(sys.modules, package, None)  # makes its import fail
    assert bench.study(f"--executor={extra}", grid=GRID) == 2
    assert f"pip install {package}, or pip install 'cs-gan[{extra}]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor=ray", "--executor-options", "num_gpu=1"], "Did you mean num_gpus"),
        (["--executor-options", "num_gpus=1"], "--executor local has no such option. There are none."),
        (["--executor=slurm", "--executor-options", "cluster=local", "walltime=1"], "walltime"),
        (["--executor=slurm", "--executor-options", "cluster"], "write key=value"),
        (["--executor=slurm"], "submitit reports: Could not detect"),
    ],
)
def test_options_that_an_executor_does_not_know_are_refused(bench, capsys, words, said):
    if "--executor=ray" in words or "--executor=slurm" in words:
        pytest.importorskip("submitit" if "--executor=slurm" in words else "ray")
    assert bench.study(*words, grid=GRID) == 2
    assert said in capsys.readouterr().err
    assert not bench.starts


def test_options_are_read_as_yaml():
    assert read_options(["a=1", "b=0.5", "c=x=y", "d=[1, 2]"]) == {"a": 1, "b": 0.5, "c": "x=y", "d": [1, 2]}
    assert yaml.safe_load("on") is True  # so that a user who writes it gets what YAML says
