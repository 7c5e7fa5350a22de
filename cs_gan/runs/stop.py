"""Requests to stop: Ctrl-C, SIGTERM, Slurm's warning, a terminal that is gone, or a time limit."""

from __future__ import annotations

import signal
import time
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""Windows has the first two."""
ECHO = 2.0  # seconds: a shell and a launcher may both pass on the same Ctrl-C


class StopSignal:
    """Receives the signals that ask to stop, from :meth:`listen` to :meth:`restore`.

    A second signal within two seconds is the same request.

    Args:
        minutes: time limit; None for no limit.
        limit: names the limit in ``reason``.

    Attributes:
        signal: the first signal; 0 before.
    """

    def __init__(self, minutes: float | None, limit: str) -> None:
        self.signal = 0
        self._limit = limit
        self._received_at = 0.0
        self._expired = False
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self._before: dict[int, object] = {}

    def listen(self) -> None:
        """Receive the signals from now on."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                self._before[number] = signal.signal(number, self._receive)

    def restore(self) -> None:
        """Put the handlers back that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def reason(self) -> str:
        """Why to stop; empty if there is no reason."""
        if self.signal:
            return f"{signal.Signals(self.signal).name} received"
        self._expired = self._expired or (self._deadline is not None and time.monotonic() > self._deadline)
        return self._limit if self._expired else ""

    def first(self) -> None:
        """Called by the first signal."""

    def again(self) -> None:
        """Called by a signal after the first request."""

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if not self.signal:
            self.signal, self._received_at = number, time.monotonic()
            self.first()
        elif time.monotonic() - self._received_at > ECHO:
            self.again()
