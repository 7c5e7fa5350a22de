"""Data sets of the Hugging Face Hub by name: ``hf:uoft-cs/cifar10``."""

from __future__ import annotations

import re
from pathlib import Path

from cs_gan.data.packed import packed_files, packed_source
from cs_gan.data.sources import ImageSource, folder_tree
from cs_gan.errors import DataError

HUB = "hf:"
"""How the name of a data set of the Hub begins."""
_REVISIONS = (None, "refs/convert/parquet")  # the Hub itself converts data sets of other forms, on a branch of its own


def hub_source(name: str, root: Path | None, split: str) -> ImageSource:
    """The images of a data set of the Hub, which is downloaded if it isn't there yet. Only Parquet is downloaded.

    Args:
        name: ``hf:<owner>/<name>``, or with one of its folders, ``hf:<owner>/<name>/<folder>``.
        root: the folder to download to; None is Hugging Face's cache.
        split: as for :func:`~cs_gan.data.packed.packed_source`.

    Raises:
        DataError: for another form of name, a failed download, or no Parquet; and those of ``packed_source``.
    """
    parts = name.removeprefix(HUB).split("/")
    if len(parts) < 2 or not all(re.fullmatch(r"\w[\w.-]*", part) for part in parts):
        raise DataError(
            f"--data.name={name}: give hf:<owner>/<name>, as in the Hub's address, such as hf:uoft-cs/cifar10."
        )
    repo, below = "/".join(parts[:2]), parts[2:]
    for revision in _REVISIONS:
        folder = _download(name, repo, "/".join([*below, "*.parquet"]), revision, root)
        if folder.joinpath(*below).is_dir():
            folder = folder.joinpath(*below)
            if files := packed_files(folder_tree(folder).others):
                return packed_source(folder, [parts for parts in files if parts[-1].endswith(".parquet")], split)
    raise DataError(
        f"--data.name={name}: the Hub has no Parquet files {'in ' + '/'.join(below) if below else 'of it'}. Download "
        "the data set by hand, and give its folder or zip: --data.name=folder --data.root=<folder>."
    )


def _download(name: str, repo: str, pattern: str, revision: str | None, root: Path | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise DataError(f'--data.name={name} needs huggingface_hub: pip install ".[gan]".') from error
    try:
        return Path(
            snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=[pattern], local_dir=root)
        )
    except Exception as error:  # those of huggingface_hub and of its HTTP library, OSError
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"--data.name={name} couldn't be downloaded ({type(error).__name__}: {reason}). Check the name, the "
            f"network and, if it is private or asks for consent, `hf auth login`. By hand: get the Parquet files from "
            f"https://huggingface.co/datasets/{repo}, and give their folder: --data.name=folder --data.root=<folder>."
        ) from error
