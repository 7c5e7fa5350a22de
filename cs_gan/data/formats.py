"""The formats of pictures that are opened. The content decides, whatever a file's name says."""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

from cs_gan.errors import DataError

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are read; PPM includes PGM. Some of its others start outside programs."""

_FOREIGN = (  # (offset, first bytes, what such a file is)
    (0, b"GIF8", "GIF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x00\x00\x01\x00", "an icon (ICO)"),
    (0, b"icns", "an icon (ICNS)"),
    (0, b"DDS ", "DDS"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphe", "HEIC"),
    (4, b"ftypmif1", "HEIC or AVIF"),
    (4, b"ftyp", "a video"),
    (0, b"SIMPLE  =", "FITS"),
    (128, b"DICM", "DICOM"),
    (0, b"\x01\xda", "SGI"),
    (0, b"\x59\xa6\x6a\x95", "Sun raster"),
    (0, b"/* XPM", "XPM"),
    (0, b"<svg", "SVG"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"PK\x03\x04", "a zip"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "HDF5"),
    *((0, bytes([10, version, 1]), "PCX") for version in (0, 2, 3, 4, 5)),
)


def open_picture(content: bytes) -> Image.Image:
    """Open a picture of one of :data:`FORMATS`, without decoding it.

    Raises:
        DataError: naming another format that is known by its first bytes.
        UnidentifiedImageError: for any other content; and Pillow's other errors.
    """
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        name = next((what for start, first, what in _FOREIGN if content.startswith(first, start)), None)
        if name is None:
            raise
        raise DataError(
            f"the file's content is {name}, whatever its name says. BMP, JPEG, PGM, PNG, PPM, TIFF and WebP are read: "
            "convert it to one of them, or remove it."
        ) from error
