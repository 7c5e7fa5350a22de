"""Packed data: Parquet, NumPy's npz, WebDataset's tars. Which of its files are read, and all of them as one source."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

from PIL import Image

from cs_gan.data.names import Parts, natural_key, natural_order, some_of
from cs_gan.data.npz import npz_keys, npz_source
from cs_gan.data.parquet import parquet_source
from cs_gan.data.sources import ImageSource
from cs_gan.data.splits import choose, split_within
from cs_gan.data.tars import tar_source
from cs_gan.errors import DataError

PACKED = {".parquet": "Parquet", ".npz": "npz", ".tar": "tar"}
"""The endings of packed files that are read, and what they are called."""


@dataclass(frozen=True)
class _Piece:
    """Pictures of one split in one file.

    Attributes:
        file: the path below the root.
        split: the split that the file's name or the array's name says; None if neither says one.
        read: opens the file.
    """

    file: Parts
    split: str | None
    read: Callable[[], ImageSource]


def packed_files(paths: Iterable[Parts]) -> list[Parts]:
    """Those paths that are packed data by their ending."""
    return natural_order(parts for parts in paths if _ending(parts) in PACKED)


def packed_source(root: Path, files: Sequence[Parts], split: str) -> ImageSource:
    """The pictures of ``split`` in packed files, in natural order of their names.

    The split is in the name of a file (``train-00000-of-00002.parquet``), of its folder (``test/0000.parquet``) or, in
    an npz, of an array (``x_train``). Without such names all pictures are read, as split ``"all"``.

    Args:
        root: a packed file, or the folder of the files.
        files: their paths below the folder.
        split: as for :func:`~cs_gan.data.splits.choose`.

    Raises:
        DataError: for files of two kinds, of two data sets or with a part missing, and those of the readers.
    """
    folder = root.parent if root.is_file() else root
    kinds = sorted({_ending(parts) for parts in files})
    if len(kinds) > 1:
        kinds_of_file = " and ".join(PACKED[kind] for kind in kinds)
        raise DataError(
            f"--data.root={root} holds {kinds_of_file} files, so it is unclear which to read. Give one file or folder."
        )
    pieces = [piece for parts in files for piece in _pieces(folder, parts)]
    # The rules for folders of splits, with the split that a name says in the place of the top folder.
    entries = [(*([piece.split] if piece.split else []), str(number)) for number, piece in enumerate(pieces)]
    chosen = choose(entries, split, root, what="files")
    members = [pieces[int(entry[-1])] for entry in chosen.entries]
    _check_one_set(root, members)
    remark = chosen.remark + _check_parts(root, members)
    with ExitStack() as opened:
        sources = []
        for piece in members:
            sources.append(piece.read())
            opened.callback(sources[-1].close)
        kind = PACKED[kinds[0]]
        remark = f", {len(members):,} {kind} files{remark}" if len(members) > 1 else remark
        return _joined(sources, chosen.split, remark, opened.pop_all().close)


def _ending(parts: Parts) -> str:
    return Path(parts[-1]).suffix.lower() if parts else ""


def _pieces(folder: Path, parts: Parts) -> list[_Piece]:
    path, split = folder.joinpath(*parts), split_within(parts)
    match _ending(parts):
        case ".parquet":
            return [_Piece(parts, split, partial(parquet_source, path))]
        case ".tar":
            return [_Piece(parts, split, partial(tar_source, path))]
    return [_Piece(parts, keys.split or split, partial(npz_source, path, keys)) for keys in npz_keys(path)]


def _check_one_set(root: Path, pieces: Sequence[_Piece]) -> None:
    """DataError if the files are in several folders that aren't splits: several data sets, or versions of one."""
    parents = {tuple(name for name in piece.file[:-1] if not split_within((name,))) for piece in pieces}
    if len(parents) > 1:
        names = sorted("/".join(parent) or "." for parent in parents)
        raise DataError(
            f"{root} holds files in several folders: {some_of(names)}. They may be several data sets, or versions of "
            "one. Give one of them as --data.root, or of the Hub as --data.name=hf:<owner>/<name>/<folder>."
        )


def _check_parts(root: Path, pieces: Sequence[_Piece]) -> str:
    """DataError if of ``train-00000-of-00002`` a part is missing; a remark if only one file was asked for."""
    numbers_of: dict[tuple[str, str], set[int]] = {}
    for piece in pieces:
        name = "/".join(piece.file)
        if part := re.search(r"(\d+)-of-(\d+)", name):
            numbers_of.setdefault((name[: part.start()], part[2]), set()).add(int(part[1]))
    for (name, count), numbers in numbers_of.items():
        # Counted from 0 (the Hub) or from 1.
        first = 1 if int(count) in numbers else 0
        missing = [number for number in range(first, first + int(count)) if number not in numbers]
        if missing and root.is_file():
            return f", part {min(numbers)} of {int(count)} alone"
        if missing:
            absent = [f"{name}{number:0{len(count)}}-of-{count}" for number in missing]
            raise DataError(f"{root} lacks {some_of(absent)}. Get the missing files, or give one file as --data.root.")
    return ""


def _joined(sources: Sequence[ImageSource], split: str, remark: str, close: Callable[[], None]) -> ImageSource:
    """One source after the other. Classes with the same name are the same class."""
    ends = list(accumulate(len(source) for source in sources))
    if not ends or not ends[-1]:
        close()
        raise DataError("The packed files hold no pictures. Get them again.")

    def open_picture(i: int) -> Image.Image:
        number = bisect_right(ends, i)
        return sources[number].open(i - ends[number] + len(sources[number]))

    labels, classes, said = _labels(sources)
    names = [name for source in sources for name in source.names]
    own = "".join(dict.fromkeys(source.remark for source in sources))
    return ImageSource(names, open_picture, labels, split, close, classes, remark=remark + own + said)


def _labels(sources: Sequence[ImageSource]) -> tuple[list[int] | None, Sequence[str], str]:
    """The labels of all, their classes, and a remark if only some have labels."""
    labels = [source.labels for source in sources]
    if any(each is None for each in labels):
        some = any(each is not None for each in labels)
        return None, (), ", no labels, because some files have none" if some else ""
    if len({bool(source.classes) for source in sources}) > 1:
        return None, (), ", no labels, because only some files name their classes"
    names = list(sources[0].classes)
    if any(list(source.classes) != names for source in sources):
        names = sorted({name for source in sources for name in source.classes}, key=natural_key)
    number = {name: i for i, name in enumerate(names)}
    joined: list[int] = []
    for source in sources:
        own = [number[name] for name in source.classes]
        count = len(own)
        # A number without a name stays, for the store's error about it.
        joined += [own[label] if 0 <= label < count else label for label in source.labels or ()]
    return joined, names, ""
