"""Reasons to end a study early: Ctrl-C, SIGTERM, or its time is over."""

from __future__ import annotations

import signal
import time
from types import FrameType


class Stop:
    """On the first request, runs save and end. On a second signal, they are killed.

    Args:
        minutes: time limit of the study; None for no limit.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.signal = 0
        self.at_once = False
        self._asked_at = 0.0
        self._before: dict[int, object] = {}
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def reason(self) -> str:
        """The reason for the stop; empty if there is none."""
        if self.signal:
            return signal.Signals(self.signal).name
        over = self._deadline is not None and time.monotonic() > self._deadline
        return "the time is over (--minutes)" if over else ""

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:
            # A shell and a launcher may both pass on the same Ctrl-C.
            self.at_once = self.at_once or time.monotonic() - self._asked_at > 2
            return
        self.signal, self._asked_at = number, time.monotonic()
