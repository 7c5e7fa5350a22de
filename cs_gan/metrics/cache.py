"""A private cache of arrays: features of the real images, and the digits classifier.

torch-fidelity's own cache is unpickled and keyed only by names. This one uses safetensors. Its keys contain everything
that changes the result. Files are written atomically and carry the sha256 of their payload. A file that doesn't verify
is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cs_gan.files import replacing

Arrays = dict[str, npt.NDArray[np.generic]]


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/cs_gan/metrics``, or ``~/.cache/cs_gan/metrics``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "cs_gan" / "metrics"


def key_digest(key: Mapping[str, object]) -> str:
    """A short digest of a key made of JSON values; equal keys, equal digests."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]


def load(path: Path) -> Arrays | None:
    """The arrays in ``path``. None if there is no such file, or with a warning if it is damaged."""
    if not path.exists():
        return None
    try:
        return _read_verified(path)
    except (SafetensorError, ValueError, OSError) as error:
        warnings.warn(f"the cache file {path} is damaged ({error}); computing it again", stacklevel=2)
        return None


def store(path: Path, arrays: Arrays) -> None:
    """Store ``arrays`` in ``path``.

    If the folder can't be written this only warns, because the arrays can be computed again.
    """
    try:
        _write_atomically(path, arrays)
    except OSError as error:
        warnings.warn(f"can't write the cache file {path} ({error}); the next run computes it again", stacklevel=2)


def load_or_compute(path: Path, compute: Callable[[], Arrays]) -> Arrays:
    """The arrays in ``path``. If there are none, the result of ``compute()``, which is then stored there."""
    arrays = load(path)
    if arrays is None:
        arrays = compute()
        store(path, arrays)
    return arrays


def _payload_sha256(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _read_verified(path: Path) -> Arrays:
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    # safetensors checks its header, not its payload: a flipped bit would load without an error.
    if metadata.get("sha256") != _payload_sha256(arrays):
        raise ValueError("its content doesn't match its sha256")
    return arrays


def _write_atomically(path: Path, arrays: Arrays) -> None:
    """If two processes compute the same thing, the last rename wins. Nobody reads an incomplete file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    payload = save(contiguous, metadata={"sha256": _payload_sha256(contiguous)})
    with replacing(path, several_writers=True) as file:
        file.write(payload)
