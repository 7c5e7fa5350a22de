#!/usr/bin/env bash
# Pillow 13.0.0: a grey TIFF that says "0 is white" (PhotometricInterpretation 0) is inverted in 8 bits, not in 16.
#
# Guess before running: the tag says what a number means, so a reader that honours it in 8 bits honours it in 16. Scans
# and X-ray plates are stored so, often in 16 bits.
#
# Seen: the same picture, written by tifffile in both depths, is read with white and black exchanged in one of them. In
# 8 bits Pillow gives 255 - value in mode L. In 16 bits it gives the stored numbers in mode I;16. Mode and pixels are
# then as for "0 is black"; only tag 262 of the open file still tells. A data set of 16-bit scans trains on negatives.
#
# Runs without cs_gan, which refuses such files. Fails if either depth is read otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pillow==13.0.0" "tifffile==2026.3.3" "numpy==2.3.5"
"$folder/venv/bin/python" - <<'PYTHON'
import io

import numpy as np
import PIL
import tifffile
from PIL import Image


def read(stored, photometric):
    file = io.BytesIO()
    tifffile.imwrite(file, stored, photometric=photometric)
    file.seek(0)
    picture = Image.open(file)
    assert picture.tag_v2[262] == (0 if photometric == "miniswhite" else 1), "the tag can still be read"
    return picture.mode, np.asarray(picture)


print(f"Pillow {PIL.__version__}, tifffile {tifffile.__version__}")
inverted = {}
for dtype in (np.uint8, np.uint16):
    top = np.iinfo(dtype).max
    stored = np.array([[0, top // 4, top]], dtype)
    mode, black = read(stored, "minisblack")
    assert np.array_equal(black, stored), "0 is black: the numbers as they are stored"
    mode, white = read(stored, "miniswhite")
    inverted[dtype] = np.array_equal(white, top - stored)
    print(f"{stored.dtype}, 0 is white: stored {stored.tolist()}, read {white.tolist()} in mode {mode}")
    assert inverted[dtype] or np.array_equal(white, stored)
assert inverted == {np.uint8: True, np.uint16: False}, inverted
PYTHON
