"""Files of statistics: ``.npz`` with ``mu`` and ``sigma``, as pytorch-fid, clean-fid and the TTUR authors hold them.

Ours hold a third array, ``provenance``: JSON as text, which the other packages don't look at.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cs_gan.errors import MetricError
from cs_gan.files import replacing
from cs_gan.metrics.scores import Statistics, checked_statistics

Arrays = dict[str, npt.NDArray[Any]]


def write_statistics(path: Path, statistics: Statistics, provenance: Mapping[str, object]) -> None:
    """Write mu (d,) and sigma (d, d) in float64, and where they come from; the file is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = np.array(json.dumps(dict(provenance), allow_nan=False))
    with replacing(path) as file:
        np.savez(file, mu=statistics["mu"], sigma=statistics["sigma"], provenance=text)


def read_statistics(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[Statistics, dict[str, Any]]:
    """The statistics among the arrays of a file, in float64, and their provenance; {} in a file of others.

    Raises:
        MetricError: arrays of other shapes, that aren't finite, or a sigma that is no covariance.
    """
    try:
        statistics = checked_statistics(arrays)
    except MetricError as error:
        raise MetricError(f"{path}: {error}") from error
    sigma = statistics["sigma"]
    # float32 files differ from their transpose by rounding
    if not np.allclose(sigma, sigma.T, rtol=1e-3, atol=1e-6 * float(np.abs(sigma).max(initial=0.0))):
        raise MetricError(f"{path}: its sigma isn't symmetric, so it is no covariance")
    try:
        about = json.loads(str(arrays["provenance"])) if "provenance" in arrays else {}
    except ValueError as error:
        raise MetricError(f"{path}: its provenance is no JSON ({error}); write it again with `stats`") from error
    return statistics, about if isinstance(about, dict) else {}


def read_npz(path: Path) -> Arrays:
    """All arrays of an ``.npz`` file; none of them may run code.

    Raises:
        MetricError: another or a damaged file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise MetricError(f"{path} holds a single array: give an .npz file, written by numpy.savez")
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise MetricError(f"{path} can't be read as .npz ({type(error).__name__}: {error})") from error
