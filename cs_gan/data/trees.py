"""From the files of a folder or zip to the pictures of a split, with their classes."""

from __future__ import annotations

from cs_gan.data.foreign import images_only
from cs_gan.data.label_table import with_table
from cs_gan.data.layout import arrange
from cs_gan.data.names import left_out
from cs_gan.data.sources import ImageSource, ImageTree


def tree_source(tree: ImageTree, split: str) -> ImageSource:
    """All images of a tree, or those of its folder for ``split``; see :func:`~cs_gan.data.layout.arrange`.

    Raises:
        DataError: if there are no images, or only other splits, or a ``dataset.json`` doesn't fit them.
    """
    try:
        images = images_only(tree.images, tree.root, tree.others)
        layout = with_table(tree, arrange(images, tree.folders, split, tree.root))
        return tree.source(layout, remark=left_out(tree.others))
    except BaseException:
        tree.close()
        raise
