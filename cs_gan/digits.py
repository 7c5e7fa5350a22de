"""scikit-learn's digits: small images that need no download."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@cache
def read_digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:  # (1797, 8, 8), (1797,)
    """Grey images in [0, 255] and their labels, from the file in scikit-learn's folder.

    scikit-learn isn't imported if the file is where it has always been: that takes two thirds of the time of torch's
    import, and reading the file a thirtieth.

    Raises:
        ImportError: scikit-learn isn't installed.
    """
    package = find_spec("sklearn")
    folders = (package and package.submodule_search_locations) or []
    files = [path for folder in folders if (path := Path(folder, "datasets", "data", "digits.csv.gz")).is_file()]
    table = np.loadtxt(files[0], delimiter=",") if files else _by_sklearn()  # (1797, 65), the label is last
    grey = np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # the source counts 0 to 16
    return grey, table[:, -1].astype(np.int64)


def _by_sklearn() -> npt.NDArray[Any]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target])
