"""Training images by name, from a folder or a zip, decoded once and held as uint8."""

from cs_gan.data.datasets import DATASET_NAMES, load_images
from cs_gan.data.layout import IMAGE_EXTENSIONS
from cs_gan.data.preparation import CELEBA_CROP, CELEBA_SIZE, MAX_PIXELS
from cs_gan.data.sampling import batch_indices, epoch_indices
from cs_gan.data.store import DEQUANTISATION_WIDTH, ImageStore
from cs_gan.data.stream import BatchStream

__all__ = [
    "CELEBA_CROP",
    "CELEBA_SIZE",
    "DATASET_NAMES",
    "DEQUANTISATION_WIDTH",
    "IMAGE_EXTENSIONS",
    "MAX_PIXELS",
    "BatchStream",
    "ImageStore",
    "batch_indices",
    "epoch_indices",
    "load_images",
]
