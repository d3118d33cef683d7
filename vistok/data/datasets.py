"""A dataset as the rest of the package sees it: numbered images, fetched as uint8 batches, augmented by given draws."""

import abc
import functools
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vistok.data.cache import CODE_VERSION, open_pixel_cache, remembered
from vistok.data.files import ImageFiles, PhotoFiles
from vistok.data.transforms import (
    LARGEST,
    Box,
    CenterSquare,
    Square,
    adm_random_crop,
    check_decodes,
    unusual_range,
)
from vistok.system.files import readable

FLIP_DRAW, TOP_DRAW, LEFT_DRAW, SIDE_DRAW = range(4)  # decided by each of a sample's random numbers


def called(name: str) -> str:
    """Return what sentences call a dataset."""
    return "your folder" if name == "folder" else name


class ImageDataset(abc.ABC):
    """Numbered images of one split at one size.

    Attributes:
        name: of the dataset.
        split: "train", "val" or "test".
        image_size: pixels, height and width; None: whole pictures, each of its own size.
        crop: "cached" or "adm", how training images are cropped at random; "none": whole pictures; None: the usual square.
        names: a sequence of the relative file name of each image.
        left_out: relative names of the files that cannot be decoded, left out by on_bad_image="skip".
        fingerprint: 12 hex digits of the images' names and sizes and of what picks them, the same on every machine.
        content: 12 hex digits of what is in the files (`ImageFiles.content`), which are read for it at its first use and
            not again while their sizes and modification times stay; None: of `photos` and `scenes`.
        preprocessing: one line on what becomes of a file.
    """

    preprocessing: str

    def __init__(
        self, name: str, split: str, image_size: int | None, crop: str | None, square: Square, files: ImageFiles
    ) -> None:
        self.name, self.split, self.image_size, self.crop = name, split, image_size, crop
        self._square, self._all_files = square, files
        self.left_out: list[str] = []
        self._rows: np.ndarray | None = None  # file of each image, where some files are left out
        self._files = files

    def _leave_out(self, unreadable: Iterable[tuple[int, str]], on_bad_image: str) -> None:
        """Leave out the unreadable files, or raise, as `on_bad_image` says; then fix the names and the fingerprint."""
        reasons = dict(unreadable)
        if reasons and on_bad_image == "raise":
            raise _refusal(next(iter(reasons.values())))
        if reasons:
            kept = np.delete(np.arange(len(self._all_files)), list(reasons))
            if not len(kept):
                raise ValueError(f"None of the {len(reasons)} images can be used: {next(iter(reasons.values()))}.")
            self.left_out = [self._all_files.names[i] for i in reasons]
            self._rows = kept
            self._files = self._all_files.select(kept)
        self.names = self._files.names
        self.fingerprint = self._files.fingerprint(self.name, self.split)

    def __len__(self) -> int:
        return len(self._files)

    @functools.cached_property
    def content(self) -> str | None:
        return content_of(self._files, self.name, self.split)

    def classes(self) -> tuple[list[str], np.ndarray] | None:
        """Return the names of the images' classes, sorted, and the class of each image, int64 [N]; None: there are none.

        As of torchvision's ImageFolder, a class is a folder of the split, with all that lies in it; there are at least two, and
        no image lies beside them.
        """
        folders = [name.partition("/") for name in self.names]
        names = sorted({folder for folder, _, _ in folders})
        if len(names) < 2 or not all(slash for _, slash, _ in folders):
            return None
        numbers = {name: number for number, name in enumerate(names)}
        return names, np.array([numbers[folder] for folder, _, _ in folders], np.int64)

    def content_key(self) -> str:
        """Return 32 hex digits that change whenever a file does, or the code that makes pixels of it; others elsewhere."""
        return self._files.content_key(CODE_VERSION)

    def is_beside(self, path: Path) -> bool:
        """Return whether a path lies where the images do, so that what is written there may be taken for them."""
        return path.resolve().is_relative_to(self._files.location.resolve())

    def record(self) -> dict[str, Any]:
        """Return what a run's record says of its images; no path of the machine is in it."""
        record = {
            "name": self.name,
            "split": self.split,
            "num_images": len(self),
            "image_size": self.image_size,
            "crop": self.crop,
            "preprocessing": self.preprocessing,
            "fingerprint": self.fingerprint,
            "left_out": self.left_out,
        }
        record |= {"licences": dict(self._files.licences)} if self._files.licences else {}
        record |= {"note": self._files.note} if self._files.note else {}
        return record if self.content is None else record | {"content": self.content}

    def original(self, index: int) -> tuple[Image.Image, Box]:
        """Return image `index` as its file has it, in RGB, and the box (left, top, right, bottom) used of it."""
        image = self._files.image(index)
        return image, self._square.box(index, *image.size)

    def images(self, indices: np.ndarray, draws: np.ndarray | None = None) -> torch.Tensor:
        """Fetch some images.

        Args:
            indices: int [b], each in [0, len(self)).
            draws: float [b, 4], uniform in [0, 1): the randomness of each image's flip, top, left and short side
                (`vistok.data.draws.uniform`); a flip draw below 1/2 flips. None: no augmentation, the centre crop.

        Returns:
            uint8 [b, 3, image_size, image_size], in the channels_last memory format; of whole pictures, which must be of one
            size, that.
        """
        pixels = self._crops(np.asarray(indices), draws)  # [b, S, S, 3]
        if draws is not None:
            flipped = np.flatnonzero(draws[:, FLIP_DRAW] < 0.5)
            pixels[flipped] = _mirrored(pixels[flipped])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)  # [b, S, S, 3] -> [b, 3, S, S], the same memory

    def different_sizes(self, num_images: int | None = None) -> list[tuple[int, int]]:
        """Return the heights and widths that there are among the first so many images, or among all, each pair once."""
        return [(self.image_size, self.image_size)]

    def mean_pixels(self, num_images: int) -> float:
        """Return the pixels of one of the first so many images, on average."""
        return self.image_size**2

    def batches(self, first: int, end: int, batch_size: int) -> list[range]:
        """Return images `first` to `end` in batches of at most so many, each of images of one size."""
        return [range(start, min(start + batch_size, end)) for start in range(first, end, batch_size)]

    @abc.abstractmethod
    def _crops(self, indices: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        """Return uint8 [b, image_size, image_size, 3], cropped by `draws` or at the centre, not flipped."""


class CachedImages(ImageDataset):
    """Images whose squares lie in a pixel cache; where a square is larger than an image, crops move within it."""

    def __init__(
        self,
        name: str,
        split: str,
        image_size: int,
        crop: str | None,
        square: Square,
        files: ImageFiles,
        on_bad_image: str,
    ) -> None:
        """Open the dataset, building its pixel cache where there is none that fits."""
        super().__init__(name, split, image_size, crop, square, files)
        # While the cache is built: of images that come out dark or white, and of those that are enlarged.
        self._largest: dict[int, int] = {}
        self._smaller: dict[int, tuple[int, int]] = {}
        crops = "" if crop is None else f", random crops of {image_size}x{image_size}"
        self.preprocessing = square.description + crops
        try:
            self._cache = open_pixel_cache(
                cache_name(name, split, square.size, files),
                files.content_key(square.description, CODE_VERSION),
                len(files),
                square.size,
                self._render,
                keep_going=on_bad_image == "skip",
                note=self._note,
            )
        except ValueError as error:
            raise _refusal(str(error)) from error
        if self._cache.note:
            warnings.warn(self._cache.note, stacklevel=3)
        self._leave_out(self._cache.unreadable, on_bad_image)

    def _note(self) -> str:
        """Return what is to be said of the images, as sentences."""
        files, notes = self._all_files, []
        if self._largest:
            index, largest = min(self._largest.items())
            notes.append(f"{len(self._largest):,} of {len(files):,} {_of_unusual_range(files, index, largest)}")
        if self._smaller:
            (width, height), index = min((size, index) for index, size in self._smaller.items())
            notes.append(
                f"{len(self._smaller):,} of {len(files):,} images of {readable(str(files.location))} are smaller than "
                f"image_size {self.image_size} and are enlarged, which adds no detail: {readable(files.names[index])}, for "
                f"instance, has {width}x{height} pixels."
            )
        return " ".join(notes)

    def _render(self, index: int) -> np.ndarray:
        image = self._all_files.image(index)
        if LARGEST in image.info:
            self._largest[index] = image.info[LARGEST]
        if isinstance(self._square, CenterSquare) and self._square.short_side(*image.size) < self.image_size:
            self._smaller[index] = image.size
        try:
            return self._square.render(index, image)
        except ValueError as error:
            raise ValueError(f"The image {self._all_files.path(index)} {error}") from error

    def _crops(self, indices: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        pixels, size = self._cache.pixels, self.image_size
        rows = indices if self._rows is None else self._rows[indices]
        margin = pixels.shape[1] - size
        if margin == 0:
            return pixels[rows]  # [b, S, S, 3]
        if draws is None:
            tops = lefts = np.full(len(rows), margin // 2)
        else:
            tops, lefts = (draws[:, [TOP_DRAW, LEFT_DRAW]] * (margin + 1)).astype(np.int64).T
        crops = np.empty((len(rows), size, size, 3), np.uint8)
        for crop, row, top, left in zip(crops, rows, tops, lefts, strict=True):
            crop[:] = pixels[row, top : top + size, left : left + size]
        return crops


class UncachedImages(ImageDataset):
    """Images that are decoded at each call: a few for a figure, where a cache of all of them would take minutes."""

    def __init__(self, name: str, split: str, image_size: int, square: Square, files: ImageFiles) -> None:
        """Open the dataset; no image is decoded."""
        super().__init__(name, split, image_size, None, square, files)
        self.preprocessing = square.description
        self._leave_out([], "raise")

    def _crops(self, indices: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        return np.stack([self._square.render(int(index), self._files.image(int(index))) for index in indices])


class AdmImages(ImageDataset):
    """Training images whose resize is drawn anew for each sample, so that nothing can be cached: ADM's random crop."""

    def __init__(self, name: str, split: str, image_size: int, files: ImageFiles, on_bad_image: str) -> None:
        """Open the dataset; on_bad_image="skip" decodes every file once, and remembers which cannot be."""
        super().__init__(name, split, image_size, "adm", CenterSquare(image_size), files)
        self._has_warned = False  # whether it was said that images come out dark or white
        self.preprocessing = f"ADM random crop to {image_size}x{image_size}"
        self._leave_out(undecodable(name, split, files) if on_bad_image == "skip" else [], on_bad_image)

    def _crops(self, indices: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        crops = np.empty((len(indices), self.image_size, self.image_size, 3), np.uint8)
        for place, index in enumerate(indices):
            image = self._files.image(index)
            if LARGEST in image.info and not self._has_warned:
                self._has_warned = True
                warnings.warn(f"Some {_of_unusual_range(self._files, index, image.info[LARGEST])}", stacklevel=2)
            crops[place] = (
                self._square.render(index, image)
                if draws is None
                else adm_random_crop(image, self.image_size, draws[place, [TOP_DRAW, LEFT_DRAW, SIDE_DRAW]])
            )
        return crops


def undecodable(name: str, split: str, files: ImageFiles) -> list[tuple[int, str]]:
    """Return the files that cannot be decoded by rising index, each with the reason; all are decoded once, and remembered."""

    def check(index: int) -> None:
        check_decodes(files.read(index), str(files.path(index)))

    key = files.content_key(CODE_VERSION)
    return open_pixel_cache(cache_name(name, split, 0, files), key, len(files), 0, check, keep_going=True).unreadable


def _of_unusual_range(files: ImageFiles, index: int, largest: int) -> str:
    """Return the end of a sentence about images of more than 8 bits whose values are not those of 16."""
    return f"images of {readable(str(files.location))} have {unusual_range(readable(files.names[index]), largest)}"


def content_of(files: ImageFiles, name: str, split: str) -> str | None:
    """Return `files.content()`, remembered while no name, size or modification time changes; None: of `photos`, `scenes`."""
    if isinstance(files, PhotoFiles):  # they come with a package, whose files nobody replaces
        return None
    return remembered(cache_name(name, split, "content", files), files.content_key(), files.content)


def _refusal(reason: str) -> ValueError:
    return ValueError(f'{reason}; on_bad_image="skip" leaves such files out and lists them.')


def _mirrored(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 [b, S, S, 3] flipped from left to right.

    A channel at a time numpy is three times as fast as with whole pixels. Torch's flip is faster still on an idle
    machine, but it wakes all computing threads, and on a busy machine waits for them for milliseconds.
    """
    mirrored = np.empty_like(pixels)
    for channel in range(pixels.shape[3]):
        mirrored[..., channel] = pixels[:, :, ::-1, channel]
    return mirrored


def cache_name(name: str, split: str, size: int | str, files: ImageFiles) -> str:
    """Return the name of a cache: one for each place that images come from, so that a change there replaces it."""
    place = zlib.crc32(str(files.location.resolve()).encode())
    return f"{name}-{split}-{size}-{place:08x}"
