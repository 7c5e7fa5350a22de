"""Parse and check the words of a command line. Each error is one line."""

from __future__ import annotations

import argparse
import re
from fractions import Fraction
from typing import NoReturn

from cs_gan.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises our errors."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(f"{message}. `{self.prog} --help` lists what there is.")


def seeds(text: str) -> list[int]:
    """``0,3,8-10`` -> [0, 3, 8, 9, 10]."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", part.strip())
        run = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if not 0 < len(run) <= 1_000_000:
            raise argparse.ArgumentTypeError(f"{text!r}: give seeds such as 0,3,8-10")
        numbers += run
    return numbers


def seed(text: str) -> int:
    """The first of :func:`seeds`."""
    return seeds(text)[0]


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number above 0")
    return int(text)


def names(text: str) -> list[str]:
    """``a,b`` -> ["a", "b"]."""
    return [part.strip() for part in text.split(",") if part.strip()]


def epsilons(text: str) -> dict[str, float]:
    """``0,8/255`` -> {"0": 0.0, "8/255": 0.0314}, in order of size, each once."""
    radii: dict[Fraction, str] = {}
    for part in names(text):
        try:
            value = Fraction(part.replace(" ", ""))
            float(value)
        except (ValueError, ZeroDivisionError, OverflowError):
            raise argparse.ArgumentTypeError(f"{part!r}: give an eps such as 0, 8/255 or 0.03") from None
        if value < 0:
            raise argparse.ArgumentTypeError(f"{part!r} is below 0: an eps is a radius, 0 or more")
        radii.setdefault(value, part)
    if not radii:
        raise argparse.ArgumentTypeError(f"{text!r}: give eps such as 0,4/255,8/255")
    return {radii[value]: float(value) for value in sorted(radii)}
