"""Runs forked from a warm parent are what separate processes would be, and none harms another."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cs_gan.study.forked import POSSIBLE, WarmParent
from cs_gan.study.process import environment

from .conftest import launch, parent, running, saved, starts_of, wait_for

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="forks need Linux")
GRID = {"mu": [0.1, 0.2]}
NAMES = ["mu=0.1-seed0", "mu=0.2-seed0"]

# Products and a backward pass large enough for all threads of torch, and numpy's of another library.
COMPUTES = """
import hashlib, sys
import numpy as np, torch
torch.manual_seed(int(sys.argv[1]))
inputs = torch.randn(8, 3, 64, 64)
layers = torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(123008, 9)
network = torch.nn.Sequential(*layers)
loss = network(inputs).logsumexp(1).sum()
loss.backward()
matrix = np.random.default_rng(0).normal(size=(400, 400))
digest = hashlib.sha256((matrix @ matrix).tobytes())
for tensor in (loss.detach(), torch.rand(3), *(parameter.grad for parameter in network.parameters())):
    digest.update(tensor.numpy().tobytes())
print(torch.get_num_threads(), digest.hexdigest())
"""

TELLS = """
import os, sys
assert __name__ == "__main__" and sys.modules["__main__"].__file__ == __file__
import helper
print(sys.argv, os.getcwd(), sys.path[0], helper.__file__, os.getsid(0) == os.getpid(), sys.stdin.read())
print("to stderr", file=sys.stderr)
"""

IMPORTS_LATE = """
import sys
print("wave" in sys.modules, "zipapp" in sys.modules)
def main():
    __import__("wave")  # the parent can't read this in the source
main()
if sys.argv[1] == "fails":
    raise ValueError("as asked")
"""


@pytest.fixture
def warm(tmp_path):
    """Writes a script and starts its warm parent; all end with the test."""
    parents = []

    def start(code, threads=1):
        script = tmp_path / "script.py"
        script.write_text(code)
        parents.append(WarmParent(str(script), environment(threads)))
        while parents[-1].loading(1):
            pass
        return parents[-1], script

    yield start
    for each in parents:
        each.close()


def finish(run):
    while True:
        try:
            return run.wait(1)
        except subprocess.TimeoutExpired:
            pass


def said(warm_parent, script, folder, *words):
    """The exit code of a forked run and what it printed."""
    output = folder / "output.txt"
    output.write_text("")
    code = finish(warm_parent.start([str(script), *words], folder, output))
    return code, output.read_text()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_run_computes_the_bits_of_a_separate_process_with_as_many_threads(warm, tmp_path, threads):
    warm_parent, script = warm(COMPUTES, threads)
    separate = subprocess.run(
        [sys.executable, str(script), "7"], env=environment(threads), capture_output=True, text=True, check=True
    )
    assert separate.stdout.split()[0] == str(threads)
    for _ in range(2):  # the second after what the parent has learnt from the first
        assert said(warm_parent, script, tmp_path, "7") == (0, separate.stdout)
    assert said(warm_parent, script, tmp_path, "8")[1] != separate.stdout
    if threads == 1:  # numpy's BLAS starts its other threads when it is loaded, and again after a fork
        assert len(os.listdir(f"/proc/{warm_parent._process.pid}/task")) == 1


def test_a_forked_run_sees_what_a_script_sees_in_its_own_process(warm, tmp_path):
    (tmp_path / "helper.py").touch()
    warm_parent, script = warm(TELLS)
    here = tmp_path / "here"
    here.mkdir()
    separate = subprocess.run(
        [sys.executable, str(script), "a b", "--c"],
        cwd=here,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(1),
        text=True,
        start_new_session=True,
    )
    assert said(warm_parent, script, here, "a b", "--c") == (0, separate.stdout)


def test_what_a_run_imports_late_is_there_before_the_next_even_if_it_fails(warm, tmp_path):
    warm_parent, script = warm(IMPORTS_LATE)
    code, output = said(warm_parent, script, tmp_path, "fails")
    assert (code, output.splitlines()[0]) == (1, "False False")
    assert output.splitlines()[-1] == "ValueError: as asked"
    assert said(warm_parent, script, tmp_path, "ends") == (0, "True False\n")


@pytest.mark.parametrize(
    "torch", ["class cuda:\n    is_available = lambda: True", "raise ImportError('broken')", "raise SystemExit"]
)
def test_nothing_is_forked_where_cuda_is_available_or_an_import_fails(warm, tmp_path, torch):
    (tmp_path / "torch.py").write_text(torch)
    warm_parent, script = warm("import torch")
    assert warm_parent.start([str(script)], tmp_path, tmp_path / "output.txt") is None


def test_a_study_whose_script_fails_at_an_import_tells_of_it_in_its_own_words(bench, tmp_path):
    script = tmp_path / "broken.py"
    script.write_text("import nothing_of_this_name\n")
    assert bench.study(script=str(script), grid=GRID, seeds=1) == 2
    assert "No module named 'nothing_of_this_name'" in bench.table[0]["problems"]


def test_the_runs_of_a_study_are_forked_from_one_parent(bench):
    bench.write(grid=GRID, seeds=1, fixed=bench.held(*NAMES))
    process = launch(bench, "--jobs=2")
    wait_for(lambda: saved(bench) == dict.fromkeys(NAMES, 2))
    (warm_parent,) = {parent(run) for run in running(bench)}
    assert parent(warm_parent) == process.pid
    bench.release(*NAMES)
    assert process.wait(60) == 0
    process.communicate()
    assert not Path(f"/proc/{warm_parent}").exists()


def test_many_runs_may_wait_for_the_parent_at_once(bench):
    assert bench.study("--jobs=8", grid=GRID, seeds=4) == 0
    assert set(bench.starts.values()) == {1}


def test_a_run_that_is_killed_harms_no_other(bench):
    bench.write(grid=GRID, seeds=2, fixed=bench.held(*NAMES))
    process = launch(bench, "--jobs=2")
    wait_for(lambda: saved(bench) == dict.fromkeys(NAMES, 2))
    os.killpg(starts_of(bench)[NAMES[0]], signal.SIGKILL)
    wait_for(lambda: len(list(bench.folder.glob("runs/*/scores.json"))) == 2)  # those of the other seed
    bench.release(*NAMES)
    process.communicate(timeout=60)
    assert process.returncode == 2
    killed = "without a word (killed by SIGKILL), step 2 of 3"
    assert [line["problems"] for line in bench.table] == [f"seed 0 failed: {killed}", ""]


def test_if_the_parent_is_killed_its_runs_save_and_the_rest_run_in_fresh_processes(bench):
    bench.write(grid=GRID, seeds=2, fixed=bench.held(*NAMES))
    process = launch(bench, "--jobs=2")
    wait_for(lambda: saved(bench) == dict.fromkeys(NAMES, 2))
    os.kill(parent(running(bench)[0]), signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: 2 of 4 runs failed or were stopped" in error
    assert [line["problems"] for line in bench.table] == ["seed 0 not run: stopped before its end, step 2 of 3"] * 2
    bench.release(*NAMES)
    assert bench.study() == 0
    assert sorted(bench.starts.values()) == [1, 1, 2, 2]
