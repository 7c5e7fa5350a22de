"""Self-contained HTML pages: templates that escape, pictures inside, nothing fetched."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

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


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template of ``templates/`` and write it, whole or not at all. All values are escaped."""
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.filters["number"] = number
    text = pages.get_template(template).render(
        quality=JPEG_QUALITY, most_grids=MOST_GRIDS, longest_side=LONGEST_SIDE, **values
    )
    partial = path.with_suffix(".partial")
    # A file name on Linux need not be valid UTF-8; such a byte is shown escaped rather than refused.
    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(partial, path)


def number(value: float) -> str:
    """Four digits, thousands apart from 10,000 on."""
    return f"{value:,.0f}" if abs(value) >= 9999.5 else f"{value:#.4g}".rstrip(".")


def with_spread(value: float | None, spread: float | None) -> str:
    """``3.200 ± 0.10``, or what there is of it."""
    text = "–" if value is None else number(value)
    return text if spread is None else f"{text} ± {f'{spread:#.2g}'.rstrip('.')}"


def frame(caption: str, picture: Path) -> Frame | None:
    """A picture file re-encoded small; None where it can't be read."""
    try:
        with Image.open(picture) as opened:
            image = opened.convert("L" if opened.mode == "L" else "RGB")
    except OSError:
        return None  # a report must not fail a run over one picture
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    data = io.BytesIO()
    image.save(data, format="JPEG", quality=JPEG_QUALITY)
    uri = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
    return Frame(caption, uri, *image.size)


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most so many items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
