"""Reasons to end a study early: a signal, or its time is over."""

from __future__ import annotations

from cs_gan.runs import StopSignal


class Stop(StopSignal):
    """On the first request, runs save and end. On a second signal, they are killed.

    Args:
        minutes: time limit of the study; None for no limit.
    """

    def __init__(self, minutes: float | None = None) -> None:
        super().__init__(minutes, "the time is over (--minutes)")
        self.at_once = False

    def __enter__(self) -> Stop:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def again(self) -> None:
        """Kill the runs."""
        self.at_once = True
