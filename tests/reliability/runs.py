"""Toy runs in processes of their own, killed and started again, and what they must have in common."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.same_runs import compare
from cs_gan.runs import RunFolder
from tests.processes import Forked, free_port
from tests.reliability import child
from tests.reliability.child import Fault

STEPS = 9
RECIPE: dict[str, object] = {
    "model.name": "dcgan16",
    "model.width": 4,
    "data.limit": 40,  # an epoch ends amid a step, and amid a batch
    "data.flip": "true",
    "training.steps": STEPS,  # the last step is neither a checkpoint's nor an evaluation's by itself
    "training.batch_size": 7,
    "training.n_critic": 2,
    "training.decay": "linear",
    "training.log_every": 3,  # a line can span a resume
    "training.checkpoint_every": 2,
    "training.sample_every": 2,
    "training.evaluate_every": 4,
    "coded.critic.blocks": "blocks.1",
    "coded.critic.weight": 0.1,
    "coded.critic.weight_end": 0.3,
    "coded.generator.blocks": "blocks.0",
    "coded.nodes": "random",
    "metrics.extractor": "digits",
    "metrics.num_samples": 40,
    "metrics.final_samples": 50,
    "metrics.num_reference": 100,
    "tracking.trackers": "none",
}


def arguments(folder: Path, *more: str, recipe: Mapping[str, object] = RECIPE) -> list[str]:
    """The command line of a toy run."""
    return [*(f"--{key}={value}" for key, value in recipe.items()), f"--output_dir={folder}", *more]


class Started(Forked):
    """One start of a run, in one process or several."""

    def __init__(
        self,
        folder: Path,
        *more: str,
        fault: Fault | None = None,
        processes: int = 1,
        recipe: Mapping[str, object] = RECIPE,
    ) -> None:
        shared = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        if processes > 1:
            shared |= {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        beside = folder.parent.parent if folder.parent.is_mount() else folder.parent  # a full disk has no room for it
        words = []
        for rank in range(processes):
            of_rank = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
            words.append((arguments(folder, *more, recipe=recipe), fault, shared | of_rank))
        super().__init__(child.run, words, [beside / f"{folder.name}-{rank}.txt" for rank in range(processes)])

    @property
    def code(self) -> int | None:
        """Of a run in one process."""
        return self.wait()[0]


def finish(folder: Path, *more: str, processes: int = 1, recipe: Mapping[str, object] = RECIPE) -> Path:
    """Start, wait for a good end."""
    started = Started(folder, *more, processes=processes, recipe=recipe)
    codes = started.wait()
    assert codes == [0] * processes, [started.said(rank)[-3000:] for rank in range(processes)]
    return folder


def kill(folder: Path, fault: Fault, *more: str) -> None:
    """Start; it must die of the fault."""
    started = Started(folder, *more, fault=fault)
    assert started.code == -9, (fault, started.code, started.said()[-3000:])


def assert_same(whole: Path, parts: Path, but: Sequence[str] = ()) -> None:
    """Weights, averages, optimisers, losses, scores, snapshots and grids are the same, to the bit."""
    rows = compare(RunFolder(whole), RunFolder(parts))
    assert len(rows) > 10
    assert [row for row in rows if not row[2] and row[0] not in but] == []


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A disk of ``size``, such as ``1m``; the test is skipped where none can be mounted."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)]
    if os.name != "posix" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here (that takes root)")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def remount(path: Path, options: str) -> None:
    """Change a disk's size, or make it read-only."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True)
