"""Fetch a file of weights on its first use: whole or not at all, and once for all processes of a machine."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from tqdm import tqdm

from cs_gan.errors import MetricError
from cs_gan.files import replacing

OFFLINE = "CS_GAN_OFFLINE"
"""The variable that forbids every download, for machines on which a connection would hang."""
SECONDS = 30.0  # without an answer
CHUNK = 2**18


class FetchError(MetricError):
    """A file that couldn't be fetched: no network, a refusal, another content than expected."""


def fetch(url: str, path: Path, sha256: str | None) -> Path:
    """``path``, fetched from ``url`` if it doesn't exist.

    Processes that ask for the same file wait for the first. The file gets its name when it is complete and its content
    is checked, so no reader sees a part. A process that is killed lets go of its lock, and the next one starts again.

    Args:
        url: where it is.
        path: where it goes; folders are made.
        sha256: of the right content; None checks the length alone.

    Raises:
        FetchError: with the reason in one sentence. Nothing is kept then.
    """
    if path.is_file():
        return path
    if os.environ.get(OFFLINE, "0") not in ("", "0"):
        raise FetchError(f"{OFFLINE} is set, so it isn't fetched.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f".{path.name}.lock"), path):
            if not path.is_file():
                print(f"Fetching {url} to {path}.", file=sys.stderr)
                with replacing(path) as file:
                    _download(url, file, sha256)
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError, a bad URL a ValueError
        raise FetchError(f"It couldn't be fetched ({type(error).__name__}: {error}).") from error
    return path


@contextmanager
def _locked(place: Path, path: Path) -> Iterator[None]:
    lock = FileLock(place)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Waiting for another process that fetches {path}.", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(url: str, file: BinaryIO, sha256: str | None) -> None:
    digest = hashlib.sha256()
    request = Request(url, headers={"User-Agent": "cs_gan"})
    with urlopen(request, timeout=SECONDS) as answer:
        length = int(answer.headers.get("Content-Length") or 0)
        # disable=None: no bar without a terminal
        with tqdm(
            total=length or None, desc="Fetching weights", unit="B", unit_scale=True, leave=False, disable=None
        ) as bar:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
    received = file.tell()
    if length and received != length:
        raise FetchError(f"The connection ended after {received:,} of {length:,} bytes. Start again.")
    if sha256 is not None and digest.hexdigest() != sha256:
        raise FetchError(
            f"What {url} sent has sha256 {digest.hexdigest()}, expected {sha256}: it was changed or damaged on the "
            "way, such as by a login page of the network. Nothing was kept."
        )
