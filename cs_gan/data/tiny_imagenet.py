"""Tiny ImageNet as published: 200 class folders for training, a table of labels for validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cs_gan.data.layout import Layout
from cs_gan.data.names import Parts, natural_order
from cs_gan.data.sources import ImageSource, ImageTree
from cs_gan.errors import DataError

FOLDER = "tiny-imagenet-200"
"""The folder in the published zip."""
SIZE = 64
"""Side of every image in pixels."""


def tiny_imagenet_source(tree: ImageTree, split: str) -> ImageSource:
    """Images and labels of ``train`` or ``val``; ``test`` means ``val``, because the test images have no labels.

    Classes are numbered as in ``wnids.txt``. The name of a class is its first synonym in ``words.txt``, with its
    WordNet id if two classes share the synonym. Without that file, the name is the id.

    Raises:
        DataError: for an unknown split, or naming what is missing, unknown or not listed.
    """
    try:
        if split not in ("train", "val", "test"):
            raise DataError(f"tiny_imagenet has no split {split!r}; it has train and val (test means val).")
        top = _top(tree)
        wnids = _wnids(tree, top)
        find = _train if split == "train" else _val
        order, labels = find(tree, top, {wnid: i for i, wnid in enumerate(wnids)})
        layout = Layout(order, labels, "train" if split == "train" else "val", _names(tree, top, wnids))
        return tree.source(layout, remark=", which stands for test: that has no labels" if split == "test" else "")
    except BaseException:
        tree.close()
        raise


def _top(tree: ImageTree) -> Parts:
    """The folder of ``wnids.txt``: the root, the published folder, or the only folder there is."""
    tops = {parts[0] for parts in tree.images if len(parts) > 1}
    for top in [(), (FOLDER,), *([(*tops,)] if len(tops) == 1 else [])]:
        if tree.text((*top, "wnids.txt")) is not None:
            return top
    raise DataError(
        f"{tree.root} holds no wnids.txt, so it isn't Tiny ImageNet as published. Give the folder {FOLDER} or its "
        "zip; for images in class folders use --data.name=folder."
    )


def _wnids(tree: ImageTree, top: Parts) -> list[str]:
    wnids = (tree.text((*top, "wnids.txt")) or "").split()
    if len(wnids) < 2 or len(set(wnids)) < len(wnids):
        raise DataError(
            f"{tree.name((*top, 'wnids.txt'))} must list two or more classes, each once; it has {len(wnids)} lines, "
            f"{len(set(wnids))} of them different. Get it again."
        )
    return wnids


def _names(tree: ImageTree, top: Parts, wnids: Sequence[str]) -> list[str]:
    lines = (tree.text((*top, "words.txt")) or "").splitlines()
    words = {wnid: words.split(",")[0].strip() for wnid, tab, words in (line.partition("\t") for line in lines) if tab}
    names = [words.get(wnid) or wnid for wnid in wnids]
    shared = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name} ({wnid})" if name in shared else name for name, wnid in zip(names, wnids, strict=True)]


def _train(tree: ImageTree, top: Parts, number: dict[str, int]) -> tuple[list[Parts], list[int]]:
    """The images of each class folder, class by class."""
    base = len(top) + 1
    of_class: dict[str, list[Parts]] = {wnid: [] for wnid in number}
    for parts in _below(tree, (*top, "train")):
        if len(parts) < base + 2 or parts[base] not in of_class:
            raise DataError(
                f"{tree.name(parts)} isn't in the folder of a class that wnids.txt lists. Remove it, or get "
                "wnids.txt again."
            )
        of_class[parts[base]].append(parts)
    if empty := [wnid for wnid, images in of_class.items() if not images]:
        raise DataError(
            f"{tree.root}: the class folder {'/'.join((*top, 'train', empty[0]))} holds no images"
            f"{f', nor do {len(empty) - 1} others' if len(empty) > 1 else ''}. Get the data again, or take what you "
            "don't want from wnids.txt."
        )
    order = [parts for wnid in number for parts in natural_order(of_class[wnid])]
    return order, [number[parts[base]] for parts in order]


def _val(tree: ImageTree, top: Parts, number: dict[str, int]) -> tuple[list[Parts], list[int]]:
    """The images of ``val/images``, labelled by ``val_annotations.txt``."""
    table = (*top, "val", "val_annotations.txt")
    labels = _annotations(tree, table, number)
    order = natural_order(_below(tree, (*top, "val")))
    if unlisted := [parts for parts in order if parts[-1] not in labels]:
        raise DataError(
            f"{tree.name(unlisted[0])} has no line in val_annotations.txt, so no label ({len(unlisted):,} such of "
            f"{len(order):,}). Get {tree.name(table)} again, or remove the image."
        )
    if absent := sorted(labels.keys() - {parts[-1] for parts in order}):
        raise DataError(
            f"{tree.name(table)} lists {absent[0]}, which isn't in val/images ({len(absent):,} such of "
            f"{len(labels):,}). Get the images again, or remove the lines."
        )
    return order, [labels[parts[-1]] for parts in order]


def _annotations(tree: ImageTree, table: Parts, number: dict[str, int]) -> dict[str, int]:  # -> file name: label
    content = tree.text(table)
    if content is None:
        raise DataError(
            f"{tree.name(table)} is missing: without it the images of val have no labels. Get it again; for a val "
            "with class folders use --data.name=folder."
        )
    labels: dict[str, int] = {}
    for row, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0].strip()
        where = f"{tree.name(table)}, line {row}:"
        if not wnid:
            raise DataError(f"{where} {line[:80]!r} isn't '<file>, tab, <class>, ...'. Get the file again.")
        if wnid not in number:
            raise DataError(f"{where} {name} is of class {wnid!r}, which wnids.txt doesn't list. Get both again.")
        if labels.setdefault(name, number[wnid]) != number[wnid]:
            raise DataError(f"{where} {name} occurs twice, with different classes. Get the file again.")
    return labels


def _below(tree: ImageTree, folder: Parts) -> list[Parts]:
    found = [parts for parts in tree.images if parts[: len(folder)] == folder]
    if not found:
        raise DataError(f"{tree.root} holds no images in {'/'.join(folder)}. Give Tiny ImageNet as published.")
    return found
