"""Two processes score as one does; they start once for all tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cs_gan.metrics import Scores, digits
from cs_gan.metrics.sharding import Processes
from tests.metrics.ranks import BATCH, COUNTS, WORLD
from tests.processes import run_in_processes


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> list[dict[str, Any]]:
    """What each process saw."""
    folder = tmp_path_factory.mktemp("ranks")
    run_in_processes("tests.metrics.ranks", WORLD, folder, digits.locate_weights(cache_dir))
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]


def test_all_processes_return_the_same_scores(seen: list[dict[str, Any]]) -> None:
    for key in ("scores", "scores again", "scores at last"):
        first, second = (process[key] for process in seen)
        assert first == second  # seconds included
        assert [scores.provenance["processes"] for scores in first] == [WORLD] * len(COUNTS)
        assert [scores.provenance["num_samples"] for scores in first] == list(COUNTS)


def test_two_processes_score_as_one_does(seen: list[dict[str, Any]]) -> None:
    def comparable(scores: list[Scores]) -> list[tuple[dict[str, float], dict[str, Any]]]:
        ignored = ("seconds", "processes")
        return [(s.values, {k: v for k, v in s.provenance.items() if k not in ignored}) for s in scores]

    # Equal to the bit: a process's batches are those of one process, noise and all.
    alone = comparable(seen[0]["scores alone"])
    for key in ("scores", "scores again", "scores at last"):
        assert comparable(seen[0][key]) == alone


def test_each_process_reads_its_share_once(seen: list[dict[str, Any]]) -> None:
    reference = [[10] * 11, [10] * 9 + [5]]
    # of 101, of 8 (the first process alone) and of 60
    generated = [[10] * 6 + [8] + [10] * 3, [10] * 4 + [1] + [10] * 3]
    assert [process["read"] for process in seen] == [r + g for r, g in zip(reference, generated, strict=True)]
    assert [process["read again"] for process in seen] == generated  # the reference came from the disk


@pytest.mark.parametrize("culprit", range(WORLD))
def test_divergence_in_one_process_raises_in_all(seen: list[dict[str, Any]], culprit: int) -> None:
    for rank, process in enumerate(seen):
        kind, message, seconds = process[f"failure of {culprit}"]
        assert kind == "MetricError"
        assert "diverged" in message
        assert (f"process {culprit} of {WORLD} failed" in message) == (rank != culprit)
        assert seconds < 10


def test_failure_of_the_first_process_alone_raises_in_all(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["failure while scoring"][0] == "ZeroDivisionError"
    kind, message, _ = seen[1]["failure while scoring"]
    assert (kind, "ZeroDivisionError" in message) == ("MetricError", True)


@pytest.mark.parametrize(("count", "size"), [(101, 2), (8, 2), (50_000, 3), (64, 8), (1, 4), (1000, 7)])
def test_shares_are_whole_batches_and_cover_everything_in_order(count: int, size: int) -> None:
    processes = Processes(torch.device("cpu"))
    processes.size = size
    shares = [processes.share(count, BATCH, rank) for rank in range(size)]
    assert [position for share in shares for position in share] == list(range(count))
    assert all(share.start % BATCH == 0 for share in shares if share)
    assert shares[0]
    assert max(map(len, shares)) - min(map(len, shares)) < 2 * BATCH
