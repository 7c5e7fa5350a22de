"""Images by name, from a folder or a zip, decoded once and kept as uint8. Labelled and shifted data for classifiers."""

from cs_gan.data.augmentation import DEQUANTISATION_WIDTH, augmented, positions
from cs_gan.data.corruptions import CORRUPTIONS, SEVERITIES, Corruption, corrupted
from cs_gan.data.datasets import DATASET_NAMES, load_images
from cs_gan.data.formats import FORMATS
from cs_gan.data.labelled import labelled, split, subset
from cs_gan.data.names import IMAGE_EXTENSIONS
from cs_gan.data.preparation import CELEBA_CROP, CELEBA_SIZE, MAX_PIXELS
from cs_gan.data.sampling import batch_indices, drawn
from cs_gan.data.shifted import SHIFTED_NAMES, load_shifted
from cs_gan.data.store import ImageStore
from cs_gan.data.stream import BatchStream
from cs_gan.data.training_and_test import train_and_test

__all__ = [
    "CELEBA_CROP",
    "CELEBA_SIZE",
    "CORRUPTIONS",
    "DATASET_NAMES",
    "DEQUANTISATION_WIDTH",
    "FORMATS",
    "IMAGE_EXTENSIONS",
    "MAX_PIXELS",
    "SEVERITIES",
    "SHIFTED_NAMES",
    "BatchStream",
    "Corruption",
    "ImageStore",
    "augmented",
    "batch_indices",
    "corrupted",
    "drawn",
    "labelled",
    "load_images",
    "load_shifted",
    "positions",
    "split",
    "subset",
    "train_and_test",
]
