"""Whole pictures, each of its own height and width: what an evaluation without the square crop is of.

The protocols crop squares, and that stays the usual way. Here nothing is resampled: a picture loses at its edges what is no
whole token, half of it at each side, and pictures of one size that follow each other are a batch.
"""

import itertools
import json
from collections.abc import Iterator

import numpy as np

from vistok.data.cache import CODE_VERSION, remembered
from vistok.data.datasets import ImageDataset, cache_name, called, undecodable
from vistok.data.files import ImageFiles
from vistok.data.transforms import WholePicture, picture_size
from vistok.system.progress import progress_bar


class WholeImages(ImageDataset):
    """Images as their files have them, cut to multiples of so many pixels; decoded at each call."""

    def __init__(self, name: str, split: str, multiple: int, files: ImageFiles, on_bad_image: str) -> None:
        """Open the dataset; the first time all files are read for their sizes.

        Args:
            name: of the dataset.
            split: "train", "val" or "test".
            multiple: pixels, what every height and width is cut to a multiple of.
            files: of the images.
            on_bad_image: "raise" a ValueError naming a file that cannot be used, or "skip" and list such files.
        """
        cut = WholePicture(multiple)
        super().__init__(name, split, None, "none", cut, files)
        self.preprocessing = cut.description
        unusable = dict(undecodable(name, split, files)) if on_bad_image == "skip" else {}
        found = json.loads(
            remembered(cache_name(name, split, "sizes", files), files.content_key(CODE_VERSION), self._look)
        )
        sizes = np.zeros((len(files), 2), np.int64)
        for index, (width, height, reason) in enumerate(found):
            if not reason and min(width, height) < multiple:
                reason = f"The image {files.path(index)} has {width}x{height} pixels, but a side must have at least {multiple}"
            if reason:
                unusable.setdefault(index, reason)
            left, top, right, bottom = cut.box(index, width, height)
            sizes[index] = bottom - top, right - left
        self._leave_out(sorted(unusable.items()), on_bad_image)
        self._sizes = sizes if self._rows is None else sizes[self._rows]  # [N, 2] of height and width

    def _look(self) -> str:
        """Return width, height, and why there are none, of each file, as JSON."""
        return json.dumps(list(self._looked()))

    def _looked(self) -> Iterator[tuple[int, int, str]]:
        what = f"sizes of the images of {called(self.name)}"
        for index in progress_bar(range(len(self._all_files)), desc=what, unit=" images", leave=False, delay=1.0):
            try:
                yield *picture_size(self._all_files.read(index), str(self._all_files.path(index))), ""
            except ValueError as error:
                yield 0, 0, str(error)

    def different_sizes(self, num_images: int | None = None) -> list[tuple[int, int]]:
        return [(height, width) for height, width in np.unique(self._sizes[:num_images], axis=0).tolist()]

    def mean_pixels(self, num_images: int) -> float:
        return float(self._sizes[:num_images].prod(1).mean())

    def batches(self, first: int, end: int, batch_size: int) -> list[range]:
        alike = itertools.groupby(range(first, end), lambda index: tuple(self._sizes[index]))
        runs = [list(run) for _, run in alike]
        return [
            range(run[0], run[-1] + 1)[at : at + batch_size] for run in runs for at in range(0, len(run), batch_size)
        ]

    def _crops(self, indices: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        different = {tuple(size) for size in self._sizes[indices].tolist()}
        if len(different) > 1:
            shown = " and ".join(f"{width}x{height}" for height, width in sorted(different)[:2])
            raise ValueError(f"Whole pictures of {shown} pixels are no batch: fetch those of one size together.")
        return np.stack([self._square.render(int(index), self._files.image(int(index))) for index in indices])
