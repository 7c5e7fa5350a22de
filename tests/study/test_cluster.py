"""What happens on clusters: a node is lost, a job is put back into the queue. Both on local stand-ins."""

import os
import signal

import pytest

from .conftest import done, kill, launch, parent, running, saved, steps, wait_for

GRID = {"mu": [0.1, 0.2]}
NAMES = ["mu=0.1-seed0", "mu=0.2-seed0"]


@pytest.mark.slow
def test_the_runs_of_a_lost_ray_node_are_taken_up_by_another(bench, on_cluster):
    lost = on_cluster.add_node(num_cpus=2)
    try:
        bench.write(grid=GRID, seeds=1, fixed=bench.held(*NAMES))
        process = launch(bench, "--executor=ray", "--executor-options", "num_cpus=2")  # one run on each node
        wait_for(lambda: saved(bench) == dict.fromkeys(NAMES, 2))
        before = running(bench)
        assert len(before) == 2
    finally:
        on_cluster.remove_node(lost, allow_graceful=False)
    wait_for(lambda: not set(before) <= set(running(bench)))
    bench.release(*NAMES)
    _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    assert sorted(bench.starts.values()) == [1, 2]  # the other node's run went on as if nothing had been
    # From its checkpoint on: no step was made twice.
    assert steps(bench) == {name: [1, 2, 3] for name in NAMES}
    assert [line["n"] for line in bench.table] == ["1", "1"]


def test_a_slurm_job_that_is_preempted_goes_back_into_the_queue_and_on(bench):
    pytest.importorskip("submitit")
    (name,) = NAMES[:1]
    bench.write(grid={"mu": [0.1]}, seeds=1, fixed=bench.held(name))
    process = launch(bench, "--executor=slurm", "--executor-options", "cluster=local")
    wait_for(lambda: saved(bench) == {name: 2})
    (run,) = running(bench)
    os.kill(parent(run), signal.SIGUSR2)  # as Slurm tells a job that it is to make room
    wait_for(lambda: run not in running(bench))
    bench.release(name)
    _, error = process.communicate(timeout=180)
    assert process.returncode == 0, error
    assert bench.starts == {name: 2}
    assert steps(bench) == {name: [1, 2, 3]}


def test_local_processes_leave_a_slurm_job_that_still_runs_alone(bench):
    pytest.importorskip("submitit")
    bench.write(grid=GRID, seeds=1, fixed=bench.held(NAMES[0]))
    process = launch(bench, "--executor=slurm", "--jobs=1", "--executor-options", "cluster=local")
    wait_for(lambda: running(bench))
    kill(process)
    assert running(bench)
    process = launch(bench)
    wait_for(lambda: NAMES[1] in done(bench))
    bench.release(NAMES[0])
    _, error = process.communicate(timeout=180)
    assert process.returncode == 0, error
    assert bench.starts == dict.fromkeys(NAMES, 1)
    assert [line["n"] for line in bench.table] == ["1", "1"]
