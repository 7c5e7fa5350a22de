"""What the person at the terminal sees, and how they stop a run."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tqdm import tqdm


class Progress:
    """A bar with ETA, losses and images per second; on a pipe or in a log file a line every half minute."""

    def __init__(self, first: int, total: int, shown: bool) -> None:
        terminal = sys.stderr.isatty()
        self._bar: tqdm[Any] = tqdm(
            total=total,
            initial=first,
            disable=not shown,
            unit="step",
            dynamic_ncols=terminal,
            mininterval=0.2 if terminal else 30.0,
        )
        self._images, self._since = 0, time.perf_counter()

    def step(self, images: int) -> None:
        """Count one step and the real images it used."""
        self._images += images
        self._bar.update()

    def show(self, values: dict[str, float]) -> float:
        """Put values on the bar; returns the images per second since the last call."""
        now = time.perf_counter()
        speed = self._images / max(now - self._since, 1e-9)
        self._images, self._since = 0, now
        text = {name: f"{value:.3g}" for name, value in values.items()}
        self._bar.set_postfix(text | {"img/s": f"{speed:.0f}"}, refresh=False)
        return speed

    def say(self, message: str) -> None:
        """A line above the bar."""
        if not self._bar.disable:
            tqdm.write(message)

    def pause(self) -> None:
        """Forget the time since the last :meth:`show`: it went into something other than training."""
        self._images, self._since = 0, time.perf_counter()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


class Interrupted(Exception):
    """A signal came while nothing was at stake."""


class StopRequest:
    """Ctrl-C, SIGTERM or the time limit: asked once, the step under way is finished; asked twice, it is not."""

    def __init__(self, max_minutes: float | None = None) -> None:
        self.reason = ""
        self.signal = 0
        self._asked_at = 0.0
        self._interruptible = False
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._received)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, the first signal ends what is being done: :class:`Interrupted` is raised, at the latest here."""
        if self.signal:
            raise Interrupted
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _received(self, number: int, _frame: FrameType | None) -> None:
        # A launcher passes on the Ctrl-C that the terminal has sent to all of us: that is one request, not two.
        if self.signal:
            if time.monotonic() - self._asked_at > 2:
                raise KeyboardInterrupt
            return
        self.signal, self.reason, self._asked_at = number, f"{signal.Signals(number).name} received", time.monotonic()
        if self._interruptible:
            raise Interrupted
        print(f"\n{self.reason}: finishing this step and saving. Once more to stop at once.", file=sys.stderr)

    def __bool__(self) -> bool:
        if not self.reason and self._deadline is not None and time.monotonic() > self._deadline:
            self.reason = "time limit reached (training.max_minutes)"
        return bool(self.reason)
