"""From a stored picture to a training image: channels, crop, size. The same preparation for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from cs_gan.data.depth import stored_bits
from cs_gan.errors import DataError

CELEBA_CROP = 178
"""Side of CelebA's centre crop, in pixels of the aligned 178x218 image."""
CELEBA_SIZE = 64
"""Default side of a CelebA training image."""
MAX_PIXELS = 64 * 2**20
"""Larger images raise an error before decoding: a few kilobytes can unpack to gigabytes."""


@dataclass(frozen=True)
class Preparation:
    """Turns a picture into a (C, H, W) uint8 array.

    Steps in order: apply the EXIF rotation, make transparent pixels white, convert channels, cut ``crop`` from the
    centre, add ``border``, resize the shorter side to ``image_size`` (bilinear, antialiased), cut the centre square.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        image_size: side of the result in pixels; None keeps the size.
        crop: side of the square that is cut out first; None for no crop.
        stored_size: (width, height) that every picture must have; None for any.
        border: black pixels to add on each side.
        other_sizes: for an error, what pictures of another (width, height) are.
    """

    channels: int
    image_size: int | None
    crop: int | None = None
    stored_size: tuple[int, int] | None = None
    border: int = 0
    other_sizes: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def __str__(self) -> str:
        crop = f"centre crop {self.crop}, " if self.crop else ""
        size = f"resize {self.image_size} bilinear antialiased, " if self.image_size else ""
        border = f"border {self.border} black, " if self.border else ""
        return f"{crop}{border}{size}{'RGB' if self.channels == 3 else 'grey'}"

    def __call__(self, image: Image.Image) -> npt.NDArray[np.uint8]:  # -> (C, H, W)
        """The training image; DataError if the picture is too large, too small or of the wrong kind."""
        self._check(image)
        bits = stored_bits(image)
        ImageOps.exif_transpose(image, in_place=True)
        image = _convert(image, self.channels, bits)
        if self.crop is not None:
            image = _centre(image, self.crop)
        if self.border:
            image = ImageOps.expand(image, self.border)
        if self.image_size is not None and image.size != (self.image_size, self.image_size):
            width, height = (side * self.image_size // min(image.size) for side in image.size)
            image = _centre(image.resize((width, height), Image.Resampling.BILINEAR), self.image_size)
        pixels = np.asarray(image)  # (H, W) when grey
        return pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1)

    def _check(self, image: Image.Image) -> None:
        width, height = image.size
        short, long = sorted(image.size)
        # The second term is the size after resizing the shorter side, which is huge for a very long picture.
        scaled = 0 if self.crop or not self.image_size or not short else self.image_size**2 * long // short
        if max(width * height, scaled) > MAX_PIXELS:
            raise DataError(
                f"the image is {width}x{height}, beyond the limit of {MAX_PIXELS / 2**20:.0f} megapixels "
                "(as stored or after the resize). Make it smaller or remove it."
            )
        if self.stored_size and image.size != self.stored_size:
            expected = "x".join(map(str, self.stored_size))
            problem = f"the image is {width}x{height}, but this data set's are {expected}"
            if image.size in self.other_sizes:
                raise DataError(f"{problem}: {self.other_sizes[image.size]}")
            raise DataError(f"{problem}. Is --data.root the right folder? For your own images use --data.name=folder.")
        if self.crop and short < self.crop:
            raise DataError(
                f"the image is {width}x{height}, too small for the {self.crop} pixel centre crop. Give the images "
                "as they were published, or use --data.name=folder for images that are already cropped."
            )


def _centre(image: Image.Image, side: int) -> Image.Image:
    """The square in the middle of an image that is as large or larger, at torchvision's place."""
    left, top = (round((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def _convert(image: Image.Image, channels: int, bits: int) -> Image.Image:
    mode = "L" if channels == 1 else "RGB"
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255 and doesn't scale.
        scaled = np.clip(np.asarray(image, dtype=np.float64) / ((2**bits - 1) / 255), 0, 255)
        image = Image.fromarray(scaled.round().astype(np.uint8))
    elif "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert(mode)
