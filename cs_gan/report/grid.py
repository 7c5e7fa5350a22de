"""Sample grids."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from einops import rearrange, repeat
from PIL import Image

from cs_gan.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

GAP = 2  # grey pixels between images; without them strokes seem to continue into the next image
GREY = 128


def save_grid(path: Path, images: Tensor, columns: int | None = None, copies: Sequence[Path] = ()) -> None:
    """Write images as one PNG, row by row with a thin gap, atomically.

    Args:
        path: a ``.png`` file.
        images: (n, C, H, W) uint8 with C of 1 or 3; n a multiple of ``columns``.
        columns: by default the square root of n.
        copies: more files to hold the same, each written atomically.

    Raises:
        ValueError: if the images don't fill the rows.
    """
    from torch.nn import functional  # torch takes seconds to import, and pages of runs do without

    columns = columns or math.isqrt(len(images))
    if len(images) % columns:
        raise ValueError(f"{len(images)} images don't fill rows of {columns}.")
    # Small images are enlarged at least twice for viewing.
    scale = max(1, 64 // images.shape[-1])
    enlarged = repeat(images, "n ch h w -> n ch (h a) (w b)", a=scale, b=scale)
    spaced = functional.pad(enlarged, (0, GAP, 0, GAP), value=GREY)
    tiled = rearrange(spaced, "(r c) ch h w -> (r h) (c w) ch", c=columns)[:-GAP, :-GAP].cpu().numpy()
    picture = Image.fromarray(tiled.squeeze(-1) if tiled.shape[-1] == 1 else tiled)
    content = io.BytesIO()
    picture.save(content, format="PNG")  # optimize=True takes five times as long for 1 % of the size
    for place in (path, *copies):
        with replacing(place) as file:
            file.write(content.getvalue())
