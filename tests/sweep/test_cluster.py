"""What happens on clusters: a node is lost, a job is put back into the queue. Both on local stand-ins."""

import os
import signal
from pathlib import Path

import pytest

from .conftest import launch, running, steps, wait_for

GRID = {"mu": [0.1, 0.2]}


@pytest.mark.slow
def test_the_runs_of_a_lost_ray_node_are_taken_up_by_another(bench, monkeypatch):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        kept, lost = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        bench.write(grid=GRID, seeds=1, fixed={"steps": 100, "seconds": 30})  # nodes may start far apart
        process = launch(bench, "--executor=ray")
        wait_for(lambda: len(running(bench)) == 2 and all(len(made) > 3 for made in steps(bench).values()))
        cluster.remove_node(lost, allow_graceful=False)
        _, error = process.communicate(timeout=240)
    finally:
        cluster.shutdown()
    assert process.returncode == 0, error
    assert kept is not lost
    assert sorted(bench.starts.values()) == [1, 2]  # the other node's run went on as if nothing had been
    # From its checkpoint on: no step was made twice.
    assert list(steps(bench).values()) == [list(range(1, 101))] * 2
    assert [line["n"] for line in bench.table] == ["1", "1"]


def test_a_slurm_job_that_is_preempted_goes_back_into_the_queue_and_on(bench):
    pytest.importorskip("submitit")
    bench.write(grid={"mu": [0.1]}, seeds=1, fixed={"steps": 100, "seconds": 10})
    process = launch(bench, "--executor=slurm", "--executor-options", "cluster=local")
    wait_for(lambda: running(bench) and len(steps(bench).get("mu=0.1-seed0", [])) > 3)
    os.kill(parent(running(bench)[0]), signal.SIGUSR2)  # as Slurm tells a job that it is to make room
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert bench.starts == {"mu=0.1-seed0": 2}
    assert steps(bench) == {"mu=0.1-seed0": list(range(1, 101))}


def test_local_processes_leave_a_slurm_job_that_still_runs_alone(bench, monkeypatch):
    pytest.importorskip("submitit")
    bench.write(grid=GRID, seeds=1)
    monkeypatch.setenv("STUB_SLOW_MU", "0.1")
    monkeypatch.setenv("STUB_SLOW_SECONDS", "8")
    process = launch(bench, "--executor=slurm", "--jobs=1", "--executor-options", "cluster=local")
    wait_for(lambda: running(bench))
    process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        pipe.close()
    assert running(bench)
    monkeypatch.delenv("STUB_SLOW_MU")
    assert bench.sweep() == 0
    assert bench.starts == {"mu=0.1-seed0": 1, "mu=0.2-seed0": 1}
    assert [line["n"] for line in bench.table] == ["1", "1"]


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
