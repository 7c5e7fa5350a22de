"""Decode every picture once into one uint8 tensor, on several threads if that helps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from cs_gan.data.depth import Tally, stored_bits
from cs_gan.data.memory import allocate
from cs_gan.data.preparation import Preparation
from cs_gan.data.sources import ImageSource
from cs_gan.errors import DataError

CHUNK = 64  # pictures per task: with one picture per task, the overhead exceeds the decoding of 32x32 pixels
SMALL_PIXELS = 128 * 128
"""Pictures up to this size are decoded on one thread. More threads compete for Python's lock: 1.6 times the time."""


def decode_images(
    source: ImageSource, chosen: Sequence[int], prepare: Preparation, *, progress: bool = False
) -> tuple[Tensor, bool, str]:  # -> (n, C, H, W) uint8, whether it is mapped, and what the description should say
    """Decode the ``chosen`` pictures of a source, in that order; see :func:`~cs_gan.data.memory.allocate`.

    Raises:
        DataError: naming the first picture that is broken, too large, of unknown depth or, if no size is requested,
            not of the same size as the first.
    """
    first = _decode(source, chosen[0], prepare, Tally())
    tally = Tally()
    images, mapped = allocate((len(chosen), *first.shape))
    pixels = images.numpy()  # a view of the same memory; numpy assigns faster

    def fill(start: int) -> int:
        stop = min(start + CHUNK, len(chosen))
        for slot in range(start, stop):
            image = _decode(source, chosen[slot], prepare, tally)
            if image.shape != first.shape:
                raise DataError(_sizes_differ(source, chosen[0], first, chosen[slot], image))
            pixels[slot] = image
        tally.brightness(source.names[chosen[start]], pixels[start:stop])
        return stop - start

    pool = ThreadPoolExecutor(max_workers=_workers(source, chosen[0]))
    try:
        with tqdm(total=len(chosen), desc="Decoding images", unit=" images", disable=not progress) as bar:
            # In order, so the error always names the first of several broken files.
            for count in pool.map(fill, range(0, len(chosen), CHUNK)):
                bar.update(count)
    finally:
        pool.shutdown(cancel_futures=True)
    return images, mapped, tally.remark()


def _workers(source: ImageSource, i: int) -> int:
    with source.open(i) as image:  # reads the header only
        small = image.width * image.height <= SMALL_PIXELS
    return 1 if small else max(2, min(8, os.cpu_count() or 2))


def _decode(source: ImageSource, i: int, prepare: Preparation, tally: Tally) -> npt.NDArray[np.uint8]:  # -> (C, H, W)
    try:
        with source.open(i) as image:
            tally.frames(image)
            bits = stored_bits(image)
            pixels = prepare(image)
            tally.bits(source.names[i], image, bits)
            return pixels
    except DataError as error:
        raise DataError(f"{source.names[i]}: {error}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{source.names[i]}: {error} Make the image smaller or remove it.") from error
    except MemoryError:
        raise
    except Exception as error:  # broken files bring OSError, SyntaxError, zlib.error, struct.error, ...
        raise DataError(
            f"{source.names[i]} can't be decoded ({type(error).__name__}: {error}). It is truncated, damaged, or "
            "not an image: delete or replace it."
        ) from error


def _sizes_differ(
    source: ImageSource, i: int, first: npt.NDArray[np.uint8], j: int, other: npt.NDArray[np.uint8]
) -> str:
    return (
        f"The images differ in size: {source.names[i]} is {first.shape[2]}x{first.shape[1]}, {source.names[j]} is "
        f"{other.shape[2]}x{other.shape[1]}. Give --data.image_size to resize and crop them all to one size."
    )
