"""What each of two processes runs in test_sharding: imported there, so it is a module of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import sklearn.datasets  # noqa: F401 (here, where it is imported once for both)
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cs_gan.errors import MetricError
from cs_gan.metrics import Evaluator, Scores, digits
from cs_gan.metrics.sharding import Processes
from tests.metrics.conftest import ToyGenerator

WORLD, BATCH = 2, 10
COUNTS = (101, 8, 60)  # 11 batches, a single one, 6: uneven shares, an empty one, equal ones


class FailsOn(nn.Module):
    """A generator that has diverged in one process only."""

    latent_dim = 4

    def __init__(self, rank: int, pixel: float) -> None:
        super().__init__()
        self.pixel = pixel if torch.distributed.get_rank() == rank else 0.0

    def forward(self, z: Tensor) -> Tensor:
        return torch.full((len(z), 1, 8, 8), self.pixel)


def evaluator(cache_dir: Path, weights: Path) -> Evaluator:
    """The same in every process; 205 reference images are an uneven share too."""
    real = digits.load_digits()[0][:205, :1]
    return Evaluator(
        "digits",
        real,
        reference_about={"data": "digits"},
        num_samples=50,
        batch_size=BATCH,
        cache_dir=cache_dir,
        weights=weights,
    )


def scored(evaluator: Evaluator, generator: nn.Module) -> list[Scores]:
    """Every count's scores."""
    return [evaluator(generator, seed=1, num_samples=count, about={"step": 5}) for count in COUNTS]


def failure(call: Callable[[], object]) -> tuple[str, str, float]:
    """What ``call()`` raises, what it says and how many seconds that took."""
    start = time.perf_counter()
    try:
        call()
    except (MetricError, ZeroDivisionError) as error:
        return type(error).__name__, str(error), time.perf_counter() - start
    raise AssertionError("no error")


def run(rank: int, folder: str, weights: str) -> None:
    """One process: everything it saw is saved as <rank>.pt."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD, timeout=timedelta(seconds=60)
    )
    torch.manual_seed(1)
    generator = ToyGenerator()
    scorer = evaluator(Path(folder) / "shared", Path(weights))
    read: list[int] = []
    scorer._extractor.module.register_forward_hook(lambda _module, args, _output: read.append(len(args[0])))
    seen: dict[str, object] = {"scores": scored(scorer, DistributedDataParallel(generator)), "read": list(read)}
    read.clear()
    scorer._reference._statistics = None  # the file must do
    seen["scores again"] = scored(scorer, generator)
    seen["read again"] = list(read)
    for culprit in range(WORLD):
        diverged = FailsOn(culprit, float("nan"))
        seen[f"failure of {culprit}"] = failure(lambda diverged=diverged: scorer(diverged))  # type: ignore[misc]
    seen["failure while scoring"] = failure(lambda: Processes(torch.device("cpu")).on_first(lambda: 1 // 0))
    seen["scores at last"] = scored(scorer, generator)  # no process is a step ahead of the other
    torch.distributed.destroy_process_group()
    if rank == 0:
        seen["scores alone"] = scored(evaluator(Path(folder) / "alone", Path(weights)), generator)
    torch.save(seen, f"{folder}/{rank}.pt")
