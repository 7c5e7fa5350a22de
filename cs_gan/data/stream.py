"""Batches prepared ahead of their use, on threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from cs_gan.errors import DataError


class BatchStream:
    """``stream[draw]`` is ``make(draw)``, while threads already make the next draws.

    ``make`` must be a pure function of the draw and, with two or more workers, safe to call at the same time. Then
    neither the number of workers nor the order of calls changes a batch. Request draws one after another. Other draws
    work too, but are not prepared ahead. If ``make`` raises an error, ``stream[draw]`` raises it for that draw, and the
    stream stays usable.

    Close it, best with ``with``. This drops prepared batches and returns when all threads have ended.

    Attributes:
        make: makes a batch.
        workers: number of threads; 0 makes each batch on request.
        ahead: number of draws after the last requested one that are prepared; unused without workers.
        pin: return batches in page-locked memory, for faster copies to a GPU; no effect without CUDA.

    Raises:
        DataError: for impossible numbers of workers or batches ahead, and for a draw from a closed stream.
    """

    def __init__(self, make: Callable[[int], Tensor], workers: int = 0, ahead: int = 4, *, pin: bool = False) -> None:
        if workers < 0 or ahead < 1:
            raise DataError(f"BatchStream({workers=}, {ahead=}): workers must be at least 0 and ahead at least 1.")
        self.make, self.workers, self.ahead = make, workers, ahead
        self.pin = pin and torch.cuda.is_available()
        self._pool = ThreadPoolExecutor(workers, "batches") if workers else None
        self._pending: dict[int, Future[Tensor]] = {}
        self._closed = False

    def __getitem__(self, draw: int) -> Tensor:
        """The batch of ``draw``."""
        if self._closed:
            raise DataError(f"BatchStream[{draw}]: the stream is closed. Draw within its `with` block.")
        if self._pool is None:
            return _make(self.make, draw, self.pin)
        wanted = range(draw, draw + self.ahead + 1)
        for stale in self._pending.keys() - set(wanted):
            self._pending.pop(stale).cancel()
        for each in wanted:
            if each not in self._pending:
                self._pending[each] = self._pool.submit(_make, self.make, each, self.pin)
        return self._pending.pop(draw).result()

    def close(self) -> None:
        """Drop prepared batches and end the threads. A second call does nothing."""
        self._closed = True
        self._pending.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# A function, not a method: a thread with a reference to the stream would keep an unused stream, and itself, alive.
def _make(make: Callable[[int], Tensor], draw: int, pin: bool) -> Tensor:
    batch = make(draw)
    return batch.pin_memory() if pin else batch
