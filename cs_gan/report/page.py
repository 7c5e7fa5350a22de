"""Self-contained HTML pages: escaped templates, embedded pictures, no requests."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from cs_gan.files import write_text
from cs_gan.report.run import Run

THOUSANDS_FROM = 9999.5  # numbers are written with separators
MOST_GRIDS = 24
LONGEST_SIDE = 800  # pixels; a grid of 64 images of 64 pixels has 526
JPEG_QUALITY = 85

T = TypeVar("T")


@dataclass(frozen=True)
class Frame:
    """A picture on a page."""

    caption: str
    uri: str
    width: int
    height: int
    step: int | None = None  # recorded inside the file, if it is replaced as the run goes on


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template of ``templates/`` and write it atomically. All values are escaped."""
    text = (
        _pages()
        .get_template(template)
        .render(quality=JPEG_QUALITY, most_grids=MOST_GRIDS, longest_side=LONGEST_SIDE, **values)
    )
    write_text(path, text)


@cache  # with its compiled templates: a run writes its page after every evaluation
def _pages() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.filters["number"] = number
    return pages


def number(value: float) -> str:
    """A number with four digits, and with thousands separators from 10,000 on."""
    return f"{value:,.0f}" if abs(value) >= THOUSANDS_FROM else f"{value:#.4g}".rstrip(".")


def with_spread(value: float | None, spread: float | None) -> str:
    """``3.20 ± 0.10``: with the decimals of a spread of two significant digits. Or only the value, or a dash."""
    if value is None:
        return "–"
    if spread is None or not math.isfinite(spread):
        return number(value)
    decimals = min(6, max(0, 1 - math.floor(math.log10(spread)))) if spread else 2
    form = f"{',' if abs(value) >= THOUSANDS_FROM else ''}.{decimals}f"
    return f"{value:{form}} ± {spread:{form}}"


def markdown_row(cells: Iterable[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def frame(caption: str, picture: Path) -> Frame | None:
    """A picture file, re-encoded smaller; None if it can't be read."""
    try:
        with Image.open(picture, formats=("PNG",)) as opened:  # a grid is a PNG
            recorded = str(opened.info.get("step", ""))
            image = opened.convert("L" if opened.mode == "L" else "RGB")
    except OSError:
        return None  # one bad picture must not stop a run
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    data = io.BytesIO()
    image.save(data, format="JPEG", quality=JPEG_QUALITY)
    uri = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
    step = int(recorded) if recorded.isdecimal() else None
    return Frame(caption if step is None else f"{caption}, step {step:,}", uri, *image.size, step)


def newest(label: str, run: Run) -> Frame | None:
    """The newest grid of a run; None if there is none that can be read."""
    if not run.grids:
        return None
    step, picture = run.grids[-1]
    return frame(label if step is None else f"{label}, step {step:,}", picture)


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most this many items, evenly spaced, including the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
