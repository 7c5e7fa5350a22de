"""How many bits a picture's numbers have, and how many frames its file: kept count of, so that it can be said."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
from PIL import Image

from cs_gan.errors import DataError

DARK = 4095
"""If no 16-bit picture of a data set has a larger value, its pixels have 12 bits or fewer. Scaled, they'd be black."""


def stored_bits(image: Image.Image) -> int:
    """8, 12 or 16 bits per channel, from the header of a picture that isn't decoded yet.

    Raises:
        DataError: for pixels whose black and white can't be known: floats, signed or 32-bit integers, inverted.
    """
    if image.mode == "F":
        raise DataError("the image has floating-point pixels of unknown range. Save it with 8 bits per channel.")
    raw, most = _raw(image)
    if (image.format in ("PNG", "PPM") and image.mode == "I") or most > 255:
        return 16  # a PPM's are scaled by Pillow, from the largest value that the header states
    if image.mode == "I":
        raise DataError(
            "the image has signed or 32-bit integers as pixels, whose black and white are unknown (as in CT scans and "
            "masks). Save it with 8 bits per channel."
        )
    # Pillow 13 inverts pictures whose 0 is white only if they have 8 bits.
    if image.format == "TIFF" and image.mode.startswith("I;16") and _tag(image, 262) == 0:
        raise DataError("the image is a 16-bit TIFF whose 0 is white. Save it with 8 bits per channel.")
    if raw == "I;12":
        return 12
    deep = image.mode.startswith("I;16") or (image.format in ("PNG", "TIFF") and ";16" in raw)
    return 16 if deep else 8


FAINT = 31
"""If no 8-bit picture of a data set has a larger value, its pixels are masks or counts of few grey levels."""


class Tally:
    """Counts what was seen in the pictures of a data set, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deep = self._twelve = self._largest = self._several = self._brightest = 0
        self._example = self._brightest_in = ""

    def frames(self, image: Image.Image) -> None:
        """Count a file with several frames or pages. Call it before decoding, which drops the others."""
        if getattr(image, "n_frames", 1) > 1:
            with self._lock:
                self._several += 1

    def bits(self, name: str, image: Image.Image, bits: int) -> None:
        """Count a decoded picture of more than 8 bits."""
        if bits == 8:
            return
        largest = _largest(image)
        with self._lock:
            self._twelve += bits == 12
            self._deep += bits == 16
            if bits == 16 and (not self._example or largest > self._largest):
                self._largest, self._example = largest, name

    def brightness(self, name: str, pixels: npt.NDArray[np.uint8]) -> None:
        """Note how bright prepared pictures are, of which the first has this name."""
        brightest = int(pixels.max(initial=0))
        with self._lock:
            if not self._brightest_in or brightest > self._brightest:
                self._brightest, self._brightest_in = brightest, name

    def remark(self) -> str:
        """What was seen, for a description; empty if all is as usual.

        Raises:
            DataError: if the 16-bit pictures hold only 12 bits or fewer, or no picture a value above :data:`FAINT`.
        """
        if self._deep and 0 < self._largest <= DARK:
            raise DataError(
                f"{self._example}: 16 bits per channel are stored, but no value of the {self._deep:,} such images "
                f"is above {self._largest:,}, so they have 12 bits or fewer and would become nearly black. Save them "
                "with 8 bits per channel, or scale them to 0 ... 65,535."
            )
        if 0 < self._brightest <= FAINT:
            raise DataError(
                f"{self._brightest_in}: no value of these images is above {self._brightest}, where 255 is white: they "
                "would be nearly black. Scale them to 0 ... 255 (a mask of 0 and 1 by 255)."
            )
        parts = [
            f", {self._deep:,} of 16 bits scaled from 0 ... 65,535 (largest {self._largest:,})" if self._deep else "",
            f", {self._twelve:,} of 12 bits scaled from 0 ... 4,095" if self._twelve else "",
            f", only the first frame or page of {self._several:,} files with several" if self._several else "",
        ]
        return "".join(parts)


def _raw(image: Image.Image) -> tuple[str, int]:
    """Pillow's name for the numbers in the file, and a PPM's largest value (0 for other formats)."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    if not isinstance(arguments, tuple):
        return str(arguments), 0
    last = arguments[-1] if arguments else 0
    return str(arguments[0] if arguments else ""), last if image.format == "PPM" and isinstance(last, int) else 0


def _tag(image: Image.Image, number: int) -> object:
    tags = getattr(image, "tag_v2", None)
    return tags.get(number) if tags is not None else None


def _largest(image: Image.Image) -> int:
    """The largest value of any colour, of 65,535. Pillow keeps only the upper 8 of a colour's 16 bits."""
    if image.mode.startswith("I"):
        return int(np.asarray(image).max())  # Pillow gives no extrema of big-endian pixels
    extrema = np.asarray(image.getextrema()).reshape(-1, 2)
    # Transparency, the fourth channel, says nothing about brightness.
    return int(extrema[:3, 1].max()) * 256 + 255
