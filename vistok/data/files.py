"""Image files as a numbered list: their names, what tells that one changed, and their bytes; in folders or in a zip."""

import abc
import copy
import functools
import hashlib
import itertools
import os
import stat
import warnings
import zipfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from PIL import Image

from vistok.data.names import Names
from vistok.data.transforms import decode
from vistok.weights import first_line

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"})
MAX_IMAGE_BYTES = 256 * 2**20  # the largest file that is read as an image; ImageNet's largest has 15 MB

_SUFFIXES = frozenset(suffix.encode() for suffix in SUFFIXES)
_FOLDER = -1  # stands for the size of a folder
_CHUNK = 8192  # files whose names become Python objects at once


class ImageFiles(abc.ABC):
    """Some image files in a fixed order.

    Attributes:
        names: a name for each, relative to the dataset, the same on every machine.
        num_bytes: int64 [N], the size of each.
        stamps: int64 [N], for each a number that changes when the file's content does (modification time, or checksum).
        location: where they are on this machine.
    """

    names: Names
    num_bytes: np.ndarray
    stamps: np.ndarray
    location: Path
    _per_file: tuple[str, ...] = ("names", "num_bytes", "stamps")  # what holds an entry for each file

    def __len__(self) -> int:
        return len(self.names)

    @abc.abstractmethod
    def read(self, index: int) -> bytes:
        """Return the whole file number `index`; a ValueError names one that cannot be read as an image."""

    def select(self, indices: Sequence[int] | np.ndarray) -> Self:
        """Return only these files, in this order."""
        chosen = copy.copy(self)
        for attribute in self._per_file:
            setattr(chosen, attribute, getattr(self, attribute)[np.asarray(indices, np.int64)])
        return chosen

    def path(self, index: int) -> Path:
        """Return what an error calls file number `index`."""
        return self.location / self.names[index]

    def image(self, index: int) -> Image.Image:
        """Return image number `index` in RGB; a file that cannot be decoded is a ValueError naming it."""
        return decode(self.read(index), str(self.path(index)))

    def fingerprint(self, *settings: object) -> str:
        """Return 12 hex digits of the names, the sizes and `settings`: the same wherever the same files lie."""
        digest = hashlib.sha256(repr(settings).encode())
        for first in range(0, len(self), _CHUNK):
            sizes = self.num_bytes[first : first + _CHUNK].tolist()
            names = self.names.encoded(first, first + _CHUNK)
            digest.update(b"".join([b"\n%b %d" % entry for entry in zip(names, sizes, strict=True)]))
        return digest.hexdigest()[:12]

    def content_key(self, *settings: object) -> str:
        """Return 32 hex digits that change whenever a file or one of `settings` does."""
        digest = hashlib.sha256(self.fingerprint(*settings).encode())
        for first in range(0, len(self), _CHUNK):
            stamps = self.stamps[first : first + _CHUNK].tolist()
            digest.update("".join([f"{stamp} " for stamp in stamps]).encode())
        return digest.hexdigest()[:32]

    def _check_size(self, index: int, num_bytes: int) -> None:
        """Refuse a file that is too large before it is read: it would take the memory that the training needs."""
        if num_bytes > MAX_IMAGE_BYTES:
            raise ValueError(
                f"The image {self.path(index)} has {num_bytes} bytes, but an image file may have {MAX_IMAGE_BYTES}"
            )


class FolderFiles(ImageFiles):
    """Files of a folder, named by their paths relative to it."""

    def __init__(self, location: Path, names: Sequence[str]) -> None:
        self.location, self.names = location, Names.of(names)
        stats = {name: os.stat(os.path.join(location, name)) for name in dict.fromkeys(names)}  # photographs repeat
        self.num_bytes = np.array([stats[name].st_size for name in names], np.int64)
        self.stamps = np.array([stats[name].st_mtime_ns for name in names], np.int64)

    @classmethod
    def scan(cls, location: Path) -> Self:
        """Return all images of a folder and its subfolders, sorted by their paths."""
        files = cls(location, [])
        num_bytes, stamps = [files.num_bytes], [files.stamps]

        def names() -> Iterator[bytes]:
            for run in scan_images(location):
                num_bytes.append(run.num_bytes)
                stamps.append(run.stamps)
                yield from run.names

        files.names = Names.of(names())
        files.num_bytes, files.stamps = np.concatenate(num_bytes), np.concatenate(stamps)
        return files

    def read(self, index: int) -> bytes:
        with open(os.path.join(self.location, self.names[index]), "rb", buffering=0) as file:
            self._check_size(index, os.fstat(file.fileno()).st_size)
            return file.readall()


class PhotoFiles(FolderFiles):
    """A few large photographs, each standing for many images: they stay decoded between two calls."""

    def image(self, index: int) -> Image.Image:
        return _decoded_photo(self.location, self.names[index])


@functools.lru_cache(maxsize=8)
def _decoded_photo(location: Path, name: str) -> Image.Image:
    return decode((location / name).read_bytes(), name)


class ZipFiles(ImageFiles):
    """Files of a zip archive, read without unpacking it, named by their last path component."""

    _per_file = (*ImageFiles._per_file, "_entries")

    def __init__(self, location: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
        self.location, self._entries = location, np.array(entries, object)
        self.names = Names.of(entry.filename.rpartition("/")[2] for entry in entries)
        self.num_bytes = np.array([entry.file_size for entry in entries], np.int64)
        self.stamps = np.array([entry.CRC for entry in entries], np.int64)
        self._open()

    def _open(self) -> None:
        self._archive = zipfile.ZipFile(self.location)

    def read(self, index: int) -> bytes:
        self._check_size(index, int(self.num_bytes[index]))
        try:
            return self._archive.read(self._entries[index])
        except Exception as error:  # a damaged entry raises whatever its bytes spell
            raise ValueError(f"{self.names[index]} cannot be read from {self.location}: {first_line(error)}") from error

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if k != "_archive"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()


def is_image_name(name: bytes) -> bool:
    """Return whether a file name, without folders, is that of an image; those of hidden files are not."""
    return name[name.rfind(b".") :].lower() in _SUFFIXES and not name.startswith(b".")


def is_hidden_folder(name: bytes) -> bool:
    """Return whether a folder of this name holds no images of the dataset."""
    return name.startswith((b".", b"__MACOSX"))


class FoundImages(NamedTuple):
    """Images of one folder that follow each other in sorted order: paths, and int64 [n] sizes and modification times."""

    names: list[bytes]
    num_bytes: np.ndarray
    stamps: np.ndarray


def scan_images(folder: Path) -> Iterator[FoundImages]:
    """Find the images of a folder and its subfolders.

    Hidden files and folders are left out; links to folders are followed, each folder once. A folder that may not be read is
    left out with a warning.

    Args:
        folder: an existing one.

    Returns:
        An iterator over images, at least one at a time; their paths are relative, with forward slashes, and sorted.
    """
    return _scan(os.fsencode(folder), b"", set())


def _scan(folder: bytes, prefix: bytes, seen: set[bytes]) -> Iterator[FoundImages]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    names: list[bytes] = []
    sizes, stamps = array("q"), array("q")
    try:
        entries = os.scandir(folder)
    except PermissionError as error:
        warnings.warn(f"Images in {os.fsdecode(folder)} are left out: {error.strerror}.", stacklevel=2)
        return
    with entries:
        for entry in entries:
            name = entry.name
            if entry.is_dir():
                # It sorts with the slash that its paths have: they come sorted, and never in one list.
                if not is_hidden_folder(name):
                    names.append(name + b"/")
                    sizes.append(_FOLDER)
                    stamps.append(0)
            elif is_image_name(name):
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):  # reading a pipe would never end
                    names.append(name)
                    sizes.append(status.st_size)
                    stamps.append(status.st_mtime_ns)
    size_of, stamp_of = np.array(sizes, np.int64), np.array(stamps, np.int64)
    order = sorted(range(len(names)), key=names.__getitem__)
    for is_folder, run in itertools.groupby(order, lambda place: sizes[place] == _FOLDER):
        places = list(run)
        if not is_folder:
            yield FoundImages([prefix + names[place] for place in places], size_of[places], stamp_of[places])
            continue
        for place in places:
            name = names[place]
            yield from _scan(os.path.join(folder, name[:-1]), prefix + name, seen)
