"""Images for the tokenizers: datasets, splits, crops, the pixel cache, and batches in a reproducible order.

dataset = open_dataset("photos", "train", image_size=64)
for batch in train_batches(dataset, 64, seed=0, steps=100):   # uint8 [64, 3, 64, 64]
    images = to_float(batch)                                  # float32 in [-1, 1]
"""

from vistok.data.datasets import ImageDataset, called
from vistok.data.identity import check_same_images, find_run_dir, same_images
from vistok.data.photos import also_trained_on
from vistok.data.registry import (
    DATASETS,
    open_dataset,
    open_figures,
    open_given,
    open_training_images,
    with_batch_that_fits,
)
from vistok.data.sampling import check_batch_size, check_loading, eval_batches, share, train_batches
from vistok.images import to_float

__all__ = [
    "DATASETS",
    "ImageDataset",
    "also_trained_on",
    "called",
    "check_batch_size",
    "check_loading",
    "check_same_images",
    "eval_batches",
    "find_run_dir",
    "open_dataset",
    "open_figures",
    "open_given",
    "open_training_images",
    "same_images",
    "share",
    "to_float",
    "train_batches",
    "with_batch_that_fits",
]
