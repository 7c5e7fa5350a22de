"""Sample grids."""

from __future__ import annotations

import math
import os
from pathlib import Path

from einops import rearrange
from PIL import Image
from torch import Tensor


def save_grid(path: Path, images: Tensor, columns: int | None = None) -> None:
    """Write images as one PNG, row by row, whole or not at all.

    Args:
        path: a ``.png`` file.
        images: (n, C, H, W) uint8 with C of 1 or 3; n a multiple of ``columns``.
        columns: the square root of n by default.

    Raises:
        ValueError: if the images don't fill the rows.
    """
    columns = columns or math.isqrt(len(images))
    if len(images) % columns:
        raise ValueError(f"{len(images)} images don't fill rows of {columns}.")
    # Small images are shown at twice or more their size: a grid is for looking at.
    scale = max(1, 64 // images.shape[-1])
    tiled = rearrange(images, "(r c) ch h w -> (r h) (c w) ch", c=columns).cpu().numpy()
    picture = Image.fromarray(tiled.squeeze(-1) if tiled.shape[-1] == 1 else tiled)
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    partial = path.with_suffix(".partial")
    picture.save(partial, format="PNG", optimize=True)
    os.replace(partial, path)
