"""The commands of Slurm, as scripts that keep a queue which never moves."""

import os
import stat

import pytest

from cs_gan.study.__main__ import TIME_OVER

from .conftest import kill, launch, wait_for

SCRIPTS = {
    "sbatch": """echo job >> "$QUEUE/submitted"; echo "Submitted batch job $(wc -l < "$QUEUE/submitted")" """,
    "scancel": """echo "$1" >> "$QUEUE/cancelled" """,
    # Called as sacct -o JobID,State,NodeList --parsable2 -j 1 -j 2 ...
    "sacct": """echo call >> "$QUEUE/asked"; echo "JobID|State|NodeList"
for id in "$@"; do case "$id" in [0-9]*)
  if grep -qx "$id" "$QUEUE/cancelled" 2> /dev/null; then echo "$id|CANCELLED by 0|"; else echo "$id|PENDING|"; fi ;;
esac; done""",
    "srun": "exit 1",
}


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A folder with the lines of what was submitted and cancelled."""
    pytest.importorskip("submitit")
    folder = tmp_path / "queue"
    folder.mkdir()
    for name, body in SCRIPTS.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("QUEUE", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def lines(name):
        return (folder / name).read_text().split() if (folder / name).exists() else []

    return lines


def test_jobs_in_the_queue_are_found_again_and_cancelled_when_the_time_is_over(
    bench, queue, monkeypatch, time_is_over_when
):
    monkeypatch.setattr("cs_gan.study.on_slurm.PAUSE", 0.05)
    bench.write(grid={"mu": [0.1, 0.2]}, seeds=1)
    process = launch(bench, "--executor=slurm", "--executor-options", "slurm_partition=long")
    wait_for(lambda: len(list(bench.folder.glob("runs/*/.slurm"))) == 2)
    kill(process)
    assert queue("cancelled") == []
    script = (bench.folder / "slurm" / "1_submission.sh").read_text()
    before = len(queue("asked"))
    time_is_over_when(lambda: len(queue("asked")) >= before + 2)  # once for each job
    assert bench.study("--executor=slurm", "--minutes=60") == TIME_OVER
    assert len(queue("submitted")) == 2  # nothing was submitted again
    assert sorted(queue("cancelled")) == ["1", "2"]
    assert [line["problems"] for line in bench.table] == ["seed 0 not run"] * 2
    assert bench.starts == {}
    assert "--partition=long" in script
    # Cancelled jobs are gone: the next study submits others.
    time_is_over_when(lambda: len(queue("submitted")) >= 4)
    assert bench.study("--executor=slurm", "--minutes=60") == TIME_OVER
    assert len(queue("submitted")) == 4
