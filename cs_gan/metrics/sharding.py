"""Scoring in several processes: shares, gathering, and passing one process's error to all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from cs_gan.errors import MetricError

T = TypeVar("T")


class Processes:
    """The processes of torch.distributed's default group, or only this one if there is no group.

    All methods except :meth:`share` are collective: all processes call them in the same order. With NCCL each
    process must have its own current CUDA device, as accelerate sets it.

    Args:
        device: this process's device.

    Attributes:
        rank: this process's number; 0 is the first, which computes and stores what is needed only once.
        size: the number of processes.
    """

    def __init__(self, device: torch.device) -> None:
        initialised = dist.is_available() and dist.is_initialized()
        self.rank: int = dist.get_rank() if initialised else 0
        self.size: int = dist.get_world_size() if initialised else 1
        # NCCL only supports CUDA tensors; gloo supports those of the CPU.
        nccl = self.size > 1 and dist.get_backend() == "nccl"
        self._carrier = device if nccl else torch.device("cpu")

    def share(self, count: int, batch_size: int, rank: int | None = None) -> range:
        """The consecutive samples, out of ``count``, for process ``rank`` (default: this process).

        Shares consist of whole batches, so every batch is the same as in one process: noise per batch and rounding
        don't depend on the number of processes. Only the last shares can be empty.
        """
        rank = self.rank if rank is None else rank
        batches = -(-count // batch_size)
        start, stop = (-(-batches * process // self.size) * batch_size for process in (rank, rank + 1))
        return range(min(start, count), min(stop, count))

    @contextmanager
    def together(self) -> Iterator[None]:
        """A context. An error in one process is raised in all, so that none waits for it.

        Raises:
            MetricError: the block failed in another process. If it failed in this process, the original error.
        """
        if self.size == 1:
            yield
            return
        error = None
        try:
            yield
        except Exception as caught:
            error = caught
        reports: list[str | None] = [None] * self.size
        dist.all_gather_object(reports, None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, report in enumerate(reports):
            if report is not None:
                raise MetricError(f"process {rank} of {self.size} failed, so there is no score: {report}")

    def gather(self, part: Tensor, count: int, batch_size: int) -> Tensor | None:  # (len(share), d) -> (count, d)
        """The parts of all processes in order, on the CPU in the first process; None in the others."""
        if self.size == 1:
            return part.cpu()
        if self.rank > 0:
            if len(part):
                dist.send(part.to(self._carrier).contiguous(), dst=0)
            return None
        parts = [part.cpu()]
        for rank in range(1, self.size):
            length = len(self.share(count, batch_size, rank))
            if length:
                received = torch.empty(length, *part.shape[1:], dtype=part.dtype, device=self._carrier)
                dist.recv(received, src=rank)
                parts.append(received.cpu())
        return torch.cat(parts)

    def on_first(self, compute: Callable[[], T]) -> T:
        """The result of ``compute()`` in the first process, returned in all processes.

        Raises:
            MetricError: it failed. In the first process, the original error.
        """
        result: list[T] = []
        with self.together():
            if self.rank == 0:
                result.append(compute())
        if self.size == 1:
            return result[0]
        message: list[T | None] = [result[0] if result else None]
        dist.broadcast_object_list(message, src=0, device=self._carrier)
        return message[0]  # type: ignore[return-value]  # T may itself admit None
