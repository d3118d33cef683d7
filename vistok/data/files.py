"""Image files as a numbered list: their names, what tells that one changed, and their bytes; in folders or in a zip."""

import abc
import copy
import functools
import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from PIL import Image

from vistok.data.transforms import decode

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"})


class ImageFiles(abc.ABC):
    """Some image files in a fixed order.

    Attributes:
        names: a name for each, relative to the dataset, the same on every machine.
        num_bytes: the size of each.
        stamps: for each a number that changes when the file's content does (modification time, or checksum).
        location: where they are on this machine.
    """

    names: list[str]
    num_bytes: list[int]
    stamps: list[int]
    location: Path
    _per_file: tuple[str, ...] = ("names", "num_bytes", "stamps")

    def __len__(self) -> int:
        return len(self.names)

    @abc.abstractmethod
    def read(self, index: int) -> bytes:
        """Return the whole file number `index`."""

    def select(self, indices: Sequence[int]) -> Self:
        """Return only these files, in this order."""
        chosen = copy.copy(self)
        for attribute in self._per_file:
            values = getattr(self, attribute)
            setattr(chosen, attribute, [values[i] for i in indices])
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
        for name, num_bytes in zip(self.names, self.num_bytes, strict=True):
            digest.update(f"\n{name} {num_bytes}".encode())
        return digest.hexdigest()[:12]

    def content_key(self, *settings: object) -> str:
        """Return 32 hex digits that change whenever a file or one of `settings` does."""
        digest = hashlib.sha256(self.fingerprint(*settings).encode())
        for stamp in self.stamps:
            digest.update(f"{stamp} ".encode())
        return digest.hexdigest()[:32]


class FolderFiles(ImageFiles):
    """Files of a folder, named by their paths relative to it."""

    def __init__(self, location: Path, names: Sequence[str]) -> None:
        self.location, self.names = location, list(names)
        stats = {name: os.stat(location / name) for name in dict.fromkeys(self.names)}  # a photograph is in many crops
        self.num_bytes = [stats[name].st_size for name in self.names]
        self.stamps = [stats[name].st_mtime_ns for name in self.names]

    def read(self, index: int) -> bytes:
        return (self.location / self.names[index]).read_bytes()


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
        self.location, self._entries = location, list(entries)
        self.names = [entry.filename.rpartition("/")[2] for entry in entries]
        self.num_bytes = [entry.file_size for entry in entries]
        self.stamps = [entry.CRC for entry in entries]
        self._open()

    def _open(self) -> None:
        self._archive = zipfile.ZipFile(self.location)

    def read(self, index: int) -> bytes:
        try:
            return self._archive.read(self._entries[index])
        except (zipfile.BadZipFile, RuntimeError) as error:  # a damaged entry; an encrypted one
            raise ValueError(f"{self.names[index]} cannot be read from {self.location}: {error}") from error

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if k != "_archive"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()


def list_images(folder: Path) -> list[str]:
    """Return the images of a folder and its subfolders as sorted relative paths with forward slashes.

    Hidden files and folders are left out; links to folders are followed, each folder once.
    """
    names, seen = [], set()
    for path, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        folders[:] = [f for f in folders if not f.startswith((".", "__MACOSX"))] if real not in seen else []
        if real in seen:
            continue
        seen.add(real)
        prefix = Path(path).relative_to(folder).as_posix()
        prefix = "" if prefix == "." else prefix + "/"
        names += [prefix + f for f in files if not f.startswith(".") and os.path.splitext(f)[1].lower() in SUFFIXES]
    return sorted(names)
