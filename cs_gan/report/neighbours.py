"""A picture of generated images beside the real images nearest to them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from cs_gan.report.chart import INK, RULE
from cs_gan.report.grid import as_picture, enlarge, save_picture

if TYPE_CHECKING:
    from torch import Tensor

MARGIN, GAP, APART = 10, 6, 26  # pixels around, between neighbours, and between an image and its neighbours
SIZE, LINE = 12, 17  # of a letter and of a line of text
LEAST = 64  # width of a cell, so that a distance fits below it
PAGE, DARK = "#ffffff", "#1f2430"


def save_neighbours(
    path: Path,
    images: Tensor,
    neighbours: Tensor,
    distances: Tensor,
    unit: str,
    remark: str = "",
    about: Mapping[str, str] | None = None,
) -> None:
    """Write a PNG with one row per image: the image, a gap, its neighbours with their distances. Atomic.

    Args:
        path: a ``.png`` file.
        images: (n, C, H, W) uint8.
        neighbours: (n, k, C, H, W) uint8, the nearest first.
        distances: (n, k).
        unit: what a distance is, for the heading.
        remark: a sentence for the foot of the picture.
        about: facts to keep inside the file, such as the step.
    """
    count, k = distances.shape
    height, width = enlarge(images[:1]).shape[-2:]
    cell = max(width, LEAST)
    left = MARGIN + max(cell, round(_font().getlength("generated"))) + APART
    foot = _wrapped(remark, max(left + k * (cell + GAP) - GAP, 320))
    heads = _wrapped(f"nearest training images, with {unit}", max(k * (cell + GAP) - GAP, 220))
    top = MARGIN + LINE * len(heads) + 4
    row = height + LINE + GAP
    texts = [left + _font().getlength(line) for line in heads] + [MARGIN + _font().getlength(line) for line in foot]
    size = round(max(left + k * (cell + GAP) - GAP, *texts)) + MARGIN
    picture = Image.new("RGB", (size, top + count * row + LINE * len(foot) + MARGIN), PAGE)
    pen = ImageDraw.Draw(picture)
    pen.text((MARGIN, MARGIN), "generated", DARK, _font())
    _write(pen, left, MARGIN, heads, DARK)
    middle = left - APART // 2
    pen.line((middle, MARGIN, middle, top + count * row - GAP), RULE)
    for number in range(count):
        y = top + number * row
        _paste(picture, images[number], MARGIN, y)
        for place in range(k):
            x = left + place * (cell + GAP)
            _paste(picture, neighbours[number, place], x, y)
            pen.text((x, y + height + 1), f"{distances[number, place].item():#.3g}".rstrip("."), INK, _font())
    _write(pen, MARGIN, top + count * row, foot, INK)
    save_picture(path, picture, about)


def _paste(picture: Image.Image, image: Tensor, x: int, y: int) -> None:  # (C, H, W)
    shown = as_picture(enlarge(image[None])[0].permute(1, 2, 0)).convert("RGB")
    picture.paste(shown, (x, y))
    # A frame, because a white image has no edge on a white page.
    ImageDraw.Draw(picture).rectangle((x - 1, y - 1, x + shown.width, y + shown.height), outline=RULE)


def _write(pen: ImageDraw.ImageDraw, x: int, y: int, lines: list[str], shade: str) -> None:
    for number, line in enumerate(lines):
        pen.text((x, y + LINE * number), line, shade, _font())


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` pixels; a longer word stays whole."""
    lines: list[str] = []
    for word in text.split():
        if lines and _font().getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


@cache
def _font() -> ImageFont.FreeTypeFont:
    """matplotlib's own, because Pillow 10.0 has none with sizes."""
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), SIZE)
