"""Sample grids."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from einops import rearrange, repeat
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cs_gan.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

GUTTER = (16, 200, 16)
"""Grey levels across the gap between images. Without a gap, strokes seem to continue into the next image.

One grey would vanish on images of that grey, such as those of an untrained generator. One of these two differs from
any grey by 92 or more. Their mean is 77, so a picture that is shown smaller keeps a dark line on middle grey.
"""
SHOWN = 64  # pixels; smaller images are enlarged by a whole factor up to this


def save_grid(
    path: Path,
    images: Tensor,
    columns: int | None = None,
    copies: Sequence[Path] = (),
    about: Mapping[str, str] | None = None,
) -> None:
    """Write images as one PNG, row by row with a thin gap, atomically.

    Args:
        path: a ``.png`` file.
        images: (n, C, H, W) uint8 with C of 1 or 3; n a multiple of ``columns``.
        columns: by default the square root of n.
        copies: more files to hold the same, each written atomically.
        about: facts to keep inside the file, such as the step. A report reads them.

    Raises:
        ValueError: if the images don't fill the rows.
    """
    columns = columns or math.isqrt(len(images))
    if len(images) % columns:
        raise ValueError(f"{len(images)} images don't fill rows of {columns}.")
    picture = as_picture(tiled(images, columns))
    for place in (path, *copies):
        save_picture(place, picture, about)


def tiled(images: Tensor, columns: int) -> Tensor:  # (n, C, H, W) -> (H', W', C)
    """One large image, with gaps between the small ones."""
    enlarged = enlarge(images)
    rows, (channels, height, width) = len(images) // columns, enlarged.shape[1:]
    high, wide = height + len(GUTTER), width + len(GUTTER)
    grid = enlarged.new_empty(rows * high - len(GUTTER), columns * wide - len(GUTTER), channels)
    for place, grey in enumerate(GUTTER):  # columns first, so that rows lie unbroken over them
        grid[:, width + place :: wide] = grey
    for place, grey in enumerate(GUTTER):
        grid[height + place :: high] = grey
    for number, row in enumerate(rearrange(enlarged, "(r c) ch h w -> r c h w ch", c=columns)):
        for column, image in enumerate(row):
            grid[number * high : number * high + height, column * wide : column * wide + width] = image
    return grid


def enlarge(images: Tensor) -> Tensor:  # (n, C, H, W) -> (n, C, s H, s W)
    """Small images for viewing, each pixel a square."""
    scale = max(1, SHOWN // images.shape[-1])
    return repeat(images, "n ch h w -> n ch (h a) (w b)", a=scale, b=scale)


def as_picture(pixels: Tensor) -> Image.Image:  # uint8 (H, W, 1 or 3)
    """An image to save."""
    values = pixels.cpu().numpy()
    return Image.fromarray(values.squeeze(-1) if values.shape[-1] == 1 else values)


def save_picture(path: Path, picture: Image.Image, about: Mapping[str, str] | None = None) -> None:
    """Write a PNG atomically, with facts that a report reads."""
    facts = PngInfo()
    for key, value in (about or {}).items():
        facts.add_text(key, value)
    content = io.BytesIO()
    picture.save(content, format="PNG", pnginfo=facts)  # optimize=True takes five times as long for 1 % of the size
    with replacing(path) as file:
        file.write(content.getvalue())
