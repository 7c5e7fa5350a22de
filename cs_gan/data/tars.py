"""WebDataset's tars: ``000000.jpg`` with its label in ``000000.cls`` or ``000000.json``. Read in place."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from cs_gan.data.formats import open_picture
from cs_gan.data.named_labels import numbered
from cs_gan.data.names import is_hidden, is_image
from cs_gan.data.sources import ImageSource, check_bytes
from cs_gan.errors import DataError

LABEL_FIELDS = ("label", "cls", "class", "class_id", "class_name")
"""Where the label is in a .json; the first that there is counts."""

_BLOCK = 512  # of a tar, in bytes
_MAX_LABEL_BYTES = 2**20
_WAYS = {"cls": 0, "json": 1}  # a .cls counts before a .json


@dataclass
class _Sample:
    """Where the files of one sample are: (start, size), None if there is no such file."""

    image: tuple[int, int] | None = None
    name: str = ""
    label: dict[str, tuple[int, int]] = field(default_factory=dict)


def tar_source(path: Path) -> ImageSource:
    """The images of a tar with their labels, in the order of the tar. Nothing is unpacked to disk.

    Files belong together if they have the same name up to the first dot. Files of other endings are left out.

    Raises:
        DataError: if the tar is broken or packed, has links, a sample has two images or no readable label, or folders
            could be classes.
    """
    samples = [each for each in _samples(path).values() if each.image]
    if not samples:
        raise DataError(f"{path} holds no images. Looked for PNG, JPEG and the other endings of images.")

    def read(i: int) -> Image.Image:
        assert samples[i].image
        start, size = samples[i].image  # type: ignore[misc]
        check_bytes(size)
        return open_picture(_bytes(path, start, size))

    labels, classes, remark = numbered(path, _labels(path, samples))
    if labels is None and len({each.name.rpartition("/")[0] for each in samples}) > 1:
        raise DataError(
            f"{path} holds images in several folders and no labels (.cls, .json), so it isn't WebDataset's. Unpack it "
            "with tar -xf and give the folder: class folders are then read as classes."
        )
    names = [f"{path}: {each.name}" for each in samples]
    return ImageSource(names, read, labels, "all", classes=classes, remark=remark)


def _samples(path: Path) -> dict[str, _Sample]:  # by name up to the first dot
    samples: dict[str, _Sample] = {}
    try:
        with tarfile.open(path, "r:") as archive:  # r: is a tar that isn't packed; a packed one can't be read in place
            for member in archive:
                _add(path, member, samples)
            end = archive.offset  # of the block after the last file
    except DataError:
        raise
    except Exception as error:  # tarfile.TarError, OSError, ValueError in a header, ...
        raise DataError(
            f"{path} can't be read as a tar ({type(error).__name__}: {error}). It is packed, truncated or damaged. Get "
            "it again, or unpack it with tar -xf and give the folder."
        ) from error
    # tarfile stops without a word at a broken header, and where a file was cut.
    if _bytes(path, end, _BLOCK) != bytes(_BLOCK):
        raise DataError(f"{path} is damaged after byte {end:,}: files may be missing. Get it again.")
    return samples


def _add(path: Path, member: tarfile.TarInfo, samples: dict[str, _Sample]) -> None:
    folder, _, name = member.name.rpartition("/")
    if member.isdir() or any(map(is_hidden, member.name.removeprefix("./").split("/"))):
        return
    if not member.isreg() or member.issparse():
        raise DataError(f"{path}: {member.name} is a link, a device or sparse. Pack only plain files.")
    stem, _, ending = name.partition(".")
    sample = samples.setdefault(f"{folder}/{stem}", _Sample())
    where = (member.offset_data, member.size)
    last = ending.lower().rpartition(".")[2]
    if is_image((name,)):
        if sample.image:
            raise DataError(
                f"{path}: {member.name} and {sample.name} are two images of one sample. Keep one of them, or give them "
                "names that differ before the first dot."
            )
        sample.image, sample.name = where, member.name
    elif last in _WAYS:
        sample.label[last] = where


def _labels(path: Path, samples: Sequence[_Sample]) -> list[object] | None:
    """The label of each sample. DataError if only some have one, or one can't be read."""
    values: list[object] = []
    for sample in samples:
        value = None
        for kind, (start, size) in sorted(sample.label.items(), key=lambda item: _WAYS[item[0]]):
            if size > _MAX_LABEL_BYTES:
                raise DataError(f"{path}: the .{kind} of {sample.name} takes {size:,} bytes, too many for a label.")
            try:
                value = _label(kind, _bytes(path, start, size).decode())
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{path}: the .{kind} of {sample.name} can't be read ({error}). Get it again."
                ) from error
            if value is not None:
                break
        values.append(value)
    return None if all(value is None for value in values) else values


def _label(kind: str, text: str) -> object:
    """A number or a name; None for a .json without a label."""
    if kind == "cls":
        word = text.strip()
        return int(word) if word.lstrip("-").isdecimal() else word
    content = json.loads(text)
    if not isinstance(content, dict):
        return content if type(content) is int else None
    return next((v for key in LABEL_FIELDS if type(v := content.get(key)) in (int, str)), None)


def _bytes(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        content = file.read(size)
    if len(content) < size:
        raise DataError(f"{path} is truncated: it ends after {start + len(content):,} bytes. Get it again.")
    return content
