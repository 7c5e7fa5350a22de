"""The progress line of a run, and requests to stop it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from cs_gan.runs import StopSignal

BAR = 4  # columns that are left for the bar itself


class Progress:
    """The progress of a run: images per second, estimated remaining time (with evaluations), losses.

    In a terminal one line is rewritten, and it fits the terminal's width. In a pipe or a log file each :meth:`show`
    prints a new line.
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
        """Print a line above the bar."""
        if self._shown:
            tqdm.write(message)

    def pause(self) -> None:
        """Don't count the time since the last :meth:`show`, because it was not spent on training."""
        self._images, self._since = 0, time.perf_counter()
        if self._done == self._first:  # the work before the first step is done only once
            self._begun = self._since

    def close(self) -> None:
        """Leave the bar on the screen."""
        self._bar.close()


def fitted(values: dict[str, float], room: int | None = None) -> str:
    """``critic_loss=0.123, generator_loss=-0.456``, names shortened until it has at most ``room`` characters.

    If initials are too long too, losses come first, then coded penalties, and the rest is left out.
    """
    for name, digits in ((str, 3), (_short, 3), (_initials, 3), (_initials, 2)):
        parts = [f"{name(key)}={value:.{digits}g}" for key, value in values.items()]
        distinct = len({name(key) for key in values}) == len(values)
        if distinct and (room is None or len(", ".join(parts)) <= room):
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
    """Raised when a signal arrives during work that a resume repeats."""


class StopRequest(StopSignal):
    """Ctrl-C, SIGTERM or the time limit.

    After the first request the current step is finished and saved. A second one ends the run at once.
    """

    def __init__(self, max_minutes: float | None = None) -> None:
        super().__init__(max_minutes, "time limit reached (training.max_minutes)")
        self._interruptible = False
        self.listen()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, the first signal ends the work at once: :class:`Interrupted` is raised, at the latest here."""
        if self.signal:
            raise Interrupted
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def first(self) -> None:
        """Interrupt what can be repeated, or say that the step is finished."""
        if self._interruptible:
            raise Interrupted
        print(f"\n{self.reason}: finishing this step and saving. Once more to stop at once.", file=sys.stderr)

    def again(self) -> None:
        """Stop at once."""
        raise KeyboardInterrupt

    def __bool__(self) -> bool:
        return bool(self.reason)
