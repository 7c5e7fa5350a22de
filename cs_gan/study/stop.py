"""Reasons to end a study early: a signal, its time is over, or its first runs fail with one error."""

from __future__ import annotations

from cs_gan.runs import StopSignal

ALIKE = 3
"""If the first runs that end, as many as this, fail with the same error, so would the others."""


class Stop(StopSignal):
    """On the first request, runs save and end. On a second signal, they are killed.

    Args:
        minutes: time limit of the study; None for no limit.
    """

    def __init__(self, minutes: float | None = None) -> None:
        super().__init__(minutes, "the time is over (--minutes)")
        self.at_once = False
        self.failure = ""  # the error of the first runs
        self._first: list[str] = []

    @property
    def reason(self) -> str:
        """Why to stop; empty if there is no reason."""
        return super().reason or (self.failure and f"the first {ALIKE} runs failed with the same error")

    def count(self, error: str) -> None:
        """Take note of a run that has ended: its error, or nothing for one that hasn't failed."""
        if len(self._first) < ALIKE:
            self._first.append(error)
            if len(self._first) == ALIKE and len(set(self._first)) == 1:
                self.failure = error

    def __enter__(self) -> Stop:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def again(self) -> None:
        """Kill the runs."""
        self.at_once = True
