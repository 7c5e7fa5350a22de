"""Batches made ahead of their use, on threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch
from torch import Tensor

from cs_gan.errors import DataError


class BatchStream:
    """``stream[draw]`` is ``make(draw)``, with the draws that follow already in the making.

    ``make`` must be a pure function of the draw (and, with two workers or more, bear being called at the same
    time), so that neither the number of workers nor the order of the calls changes a batch. Ask for draws one
    after another; any other draw is made all the same, only without a head start. What ``make`` raises is raised
    by ``stream[draw]`` of that draw, and the stream stays usable.

    Close it, best by ``with``: that drops what was made ahead and returns once every thread has ended.

    Attributes:
        make: makes a batch.
        workers: threads; 0 makes each batch when it is asked for.
        ahead: how many draws beyond the last one asked for are in the making or ready; unused without workers.
        pin: hand out batches in page-locked memory, for faster copies to a GPU; no effect without CUDA.

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
        """Drop what was made ahead and end the threads; a second call does nothing."""
        self._closed = True
        self._pending.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# A function, not a method: a thread that held the stream would keep a forgotten one, and so itself, alive.
def _make(make: Callable[[int], Tensor], draw: int, pin: bool) -> Tensor:
    batch = make(draw)
    return batch.pin_memory() if pin else batch
