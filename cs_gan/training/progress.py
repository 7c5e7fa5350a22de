"""What the person at the terminal sees, and how they stop a run."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tqdm import tqdm

BAR = 4  # columns that are left for the bar itself


class Progress:
    """Where a run stands: images per second, time to go (evaluations so far counted in), losses.

    A line that is rewritten in a terminal, and never wider than it; on a pipe or in a log file a new line at each
    :meth:`show`.
    """

    def __init__(self, first: int, total: int, shown: bool) -> None:
        self._shown, self._terminal = shown, sys.stderr.isatty()
        self._bar: tqdm[Any] = tqdm(
            total=total,
            initial=first,
            disable=not (shown and self._terminal),
            dynamic_ncols=True,
            mininterval=0.2,
            bar_format="{n_fmt}/{total_fmt}{desc}{postfix} {bar}",
        )
        self._done, self._first, self._total = first, first, total
        self._images, self._since = 0, time.perf_counter()
        self._begun = self._since

    def step(self, images: int) -> None:
        """Count one step and the real images it used."""
        self._images += images
        self._done += 1
        self._bar.update()

    def show(self, values: dict[str, float]) -> float:
        """Show values; returns the images per second since the last call."""
        now = time.perf_counter()
        speed = self._images / max(now - self._since, 1e-9)
        self._images, self._since = 0, now
        left = (self._total - self._done) * (now - self._begun) / max(self._done - self._first, 1)
        where, pace = f"{self._done}/{self._total}", f", {speed:.0f} img/s, ETA {tqdm.format_interval(left)}"
        if not self._bar.disable:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            self._bar.set_description_str(pace, refresh=False)
            widest = f"{self._total}/{self._total}{pace},  "  # with a space before the bar
            room = columns - len(widest) - BAR
            self._bar.set_postfix_str(fitted(values, room), refresh=False)
        elif self._shown:
            print(f"step {where}{pace}, {fitted(values)}".rstrip(", "), file=sys.stderr, flush=True)
        return speed

    def say(self, message: str) -> None:
        """A line above the bar."""
        if self._shown:
            tqdm.write(message)

    def pause(self) -> None:
        """Forget the time since the last :meth:`show`: it went into something other than training."""
        self._images, self._since = 0, time.perf_counter()
        if self._done == self._first:  # what comes before the first step comes once
            self._begun = self._since

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


def fitted(values: dict[str, float], room: int | None = None) -> str:
    """``critic_loss=0.123, generator_loss=-0.456``, names shortened until it has at most ``room`` characters.

    Where even initials are too long for it, losses come first, then coded penalties, and the rest goes.
    """
    for name, digits in ((str, 3), (_short, 3), (_initials, 3), (_initials, 2)):
        parts = [f"{name(key)}={value:.{digits}g}" for key, value in values.items()]
        told = len({name(key) for key in values}) == len(values)  # no two names have become one
        if told and (room is None or len(", ".join(parts)) <= room):
            return ", ".join(parts)
    text = ""
    for key in sorted(values, key=lambda key: 0 if key.endswith("loss") else 1 if key.endswith("coded") else 2):
        longer = f"{text}{', ' if text else ''}{_initials(key)}={values[key]:.2g}"
        text = longer if len(longer) <= (room or 0) else text
    return text


def _short(name: str) -> str:
    """``critic_loss`` -> ``c_loss``, ``gradient_penalty`` -> ``g_pena``, ``wasserstein`` -> ``wass``."""
    *first, last = name.split("_")
    return "_".join([*(word[:1] for word in first), last[:4]])


def _initials(name: str) -> str:
    """``critic_loss`` -> ``cl``."""
    return "".join(word[:1] for word in name.split("_"))


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
