"""scikit-learn's digits as a folder with test images: ``python -m benchmarks.digits_folder FOLDER``.

The digits have no test images of their own. This writes ``train/<class>/`` (1,297 images) and ``test/<class>/`` (500, a
fixed random choice with equal shares of the classes) as 16x16 PNGs, for studies that score on images not trained on.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from cs_gan.data import drawn, load_images

TEST = 500


def main(arguments: list[str] | None = None) -> int:
    """Write the folder; 2 if it is there already."""
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) != 1 or Path(words[0]).exists():
        print("error: give one folder that doesn't exist yet.", file=sys.stderr)
        return 2
    store = load_images("digits")
    assert store.labels is not None
    test = set(drawn(len(store), TEST, 0, store.labels).tolist())
    for number, (image, label) in enumerate(zip(store.images, store.labels.tolist(), strict=True)):
        folder = Path(words[0]) / ("test" if number in test else "train") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / f"{number:04d}.png")
    print(f"{len(store) - TEST} training and {TEST} test images: {words[0]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
