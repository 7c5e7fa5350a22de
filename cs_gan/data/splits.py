"""Which images of a folder or zip belong to the split that is asked for, from their paths only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cs_gan.data.names import Parts, some_of
from cs_gan.errors import DataError

_SYNONYMS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
}
# Folders that come beside those. A folder of this name alone says nothing.
_EXTRAS = ("dev", "eval", "evaluation", "extra", "holdout", "pred", "prediction", "unlabeled", "unlabelled")
_SPLITS = {word: split for split, words in _SYNONYMS.items() for word in words} | {word: word for word in _EXTRAS}


@dataclass(frozen=True)
class Chosen:
    """The images of a split.

    Attributes:
        entries: their paths, in the given order.
        split: the split that these images are; ``"all"`` if the source isn't split.
        start: the depth from which class folders may follow.
        depth: the depth of the class folders, if there are classes.
        remark: what was left out or taken instead, for the description.
    """

    entries: Sequence[Parts]
    split: str
    start: int
    depth: int
    remark: str = ""


def choose(entries: Sequence[Parts], split: str, root: Path, *, what: str = "images") -> Chosen:
    """The images of ``split``, if all top folders have names of splits; otherwise all images, as split ``"all"``.

    A single folder that contains everything is skipped. ``Train``, ``training`` and ``seg_train`` mean train. ``val``
    stands for a ``test`` that isn't there, and the remark says so. ``what`` is what the entries are, for the remark.

    Raises:
        DataError: if the source has only other splits, or two folders of the one, or train and test among others.
    """
    depth = shared_depth(entries, 0, stop=lambda name: name == split or _SPLITS.get(name.lower()) in _SYNONYMS)
    counts: dict[str, int] = {}
    for parts in entries:
        if len(parts) > depth + 1:
            counts[parts[depth]] = counts.get(parts[depth], 0) + 1
    kinds = {top: split_of(top) for top in counts}
    if counts and all(kinds.values()):
        return _of_splits(entries, split, root, depth, kinds, counts, what)
    if split in counts and split not in _SPLITS:  # a name that only the caller knows
        rest = ", ".join(f"{top}/" for top in sorted(counts) if top != split)
        return _below(entries, split, split, depth, f", {rest} left out" if rest else "")
    among = sorted(top for top, kind in kinds.items() if kind in _SYNONYMS)
    if split != "all" and len({kinds[top] for top in among}) > 1:
        others = sorted(top for top, kind in kinds.items() if not kind)
        raise DataError(
            f"{root} has the splits {', '.join(among)} beside {some_of(others)}, so it is unclear what is a split and "
            "what a class. Move the one or the other out, or rename them."
        )
    if split != "all":
        _refuse_splits_below(entries, root, depth)
    remark = "".join(f", {top}/ taken for a class like the folders beside it" for top in among)
    return Chosen(entries, "all", 0, depth, remark)


def _refuse_splits_below(entries: Sequence[Parts], root: Path, depth: int) -> None:
    """Raise DataError if a folder holds train and test, and something lies beside it: both would be read as one."""
    below: dict[str, set[str]] = {}
    for parts in entries:
        if len(parts) > depth + 2:
            below.setdefault(parts[depth], set()).add(parts[depth + 1])
    for top, names in sorted(below.items()):
        kinds = {split_of(name) for name in names}
        if kinds <= set(_SYNONYMS) and len(kinds) > 1:
            raise DataError(
                f"{root} has the splits {', '.join(sorted(names))} inside of {top}/, and other images beside {top}/: "
                f"train and test would be read as one. Give that folder as data.root, or put the splits on top."
            )


def split_of(name: str) -> str | None:
    """``train`` for train, Training, seg_train, training_set, train2017, trainA; None if it isn't that of a split."""
    if re.fullmatch(r"(?:train|test|val)[AB]", name):  # as CycleGAN's data
        name = name[:-1]
    match = re.fullmatch(r"(?:seg[_-])?([a-z]+?)(?:[_-]?(?:set|images?|data|\d{4}))?", name.lower())
    return _SPLITS.get(match[1]) if match else None


def split_within(parts: Parts) -> str | None:
    """The split that a word in the name of a file says, or else in that of its folder: ``cifar-train-00000.parquet``.

    None if no name has such a word, or the name has those of two splits.
    """
    for name in reversed(parts):
        if splits := {_SPLITS[word] for word in re.findall("[a-z]+", name.lower()) if word in _SPLITS}:
            return splits.pop() if len(splits) == 1 else None
    return None


def shared_depth(entries: Sequence[Parts], depth: int, stop: Callable[[str], bool] = lambda name: False) -> int:
    """The depth below the folders that contain everything, from ``depth`` on, up to a folder that ``stop`` names."""
    while len({parts[depth] if len(parts) > depth + 1 else None for parts in entries}) == 1:
        if len(entries[0]) <= depth + 1 or stop(entries[0][depth]):
            break
        depth += 1
    return depth


def _of_splits(
    entries: Sequence[Parts],
    split: str,
    root: Path,
    depth: int,
    kinds: Mapping[str, str | None],
    counts: Mapping[str, int],
    what: str,
) -> Chosen:
    """The images of a source whose top folders are all splits."""
    stray = len(entries) - sum(counts.values())
    if split == "all":
        # seg_train/seg_train/<class>: the split's name once more, in every split
        nested = all(len(p) > depth + 2 and kinds[p[depth]] == split_of(p[depth + 1]) for p in entries)
        start = depth if stray else depth + 1 + nested
        return Chosen(entries, "all", 0 if stray else start, start)
    kind = _SPLITS.get(split, split)
    folders = [split] if split in counts else sorted(top for top in counts if kinds[top] == kind)
    name, remark = split, ""
    if not folders and kind == "test" and (folders := sorted(top for top in counts if kinds[top] == "val")):
        name, remark = "val", f", which stands for {split}: there is none"
    if len(folders) > 1:
        raise DataError(f"{root} has {len(folders)} folders for {split!r}: {', '.join(folders)}. Keep one of them.")
    if not folders:
        beside = f" and {stray:,} {what} beside" if stray else ""
        raise DataError(f"{root} has no split {split!r}. It has: {', '.join(sorted(counts))}{beside}.")
    # The other two of train, val and test can be asked for; what nobody asks for is said.
    rest = [f"{n:,} in {t}" for t, n in sorted(counts.items()) if t not in folders and kinds[t] in (kind, *_EXTRAS)]
    rest += [f"{stray:,} beside the splits"] if stray else []
    return _below(entries, folders[0], name, depth, remark + (f", {what} left out: {', '.join(rest)}" if rest else ""))


def _below(entries: Sequence[Parts], top: str, split: str, depth: int, remark: str) -> Chosen:
    members = [parts for parts in entries if len(parts) > depth + 1 and parts[depth] == top]
    return Chosen(members, split, depth + 1, shared_depth(members, depth + 1), remark)
