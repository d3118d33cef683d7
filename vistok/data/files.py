"""Image files as a numbered list: their names, what tells that one changed, and their bytes; in folders or in a zip."""

import abc
import copy
import errno
import functools
import hashlib
import itertools
import os
import stat
import warnings
import zipfile
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from PIL import Image

from vistok.data.names import Names
from vistok.data.naming import (
    IN_SYSTEM_FOLDERS,
    MASKS,
    NO_FILES,
    LeftOut,
    check_no_twins,
    check_one_pool,
    is_image_name,
    is_system_folder,
    masks_among,
    suffix_of,
)
from vistok.data.transforms import decode
from vistok.system.files import readable
from vistok.system.progress import progress_bar
from vistok.system.weights import first_line

MAX_IMAGE_BYTES = 256 * 2**20  # the largest file that is read as an image; ImageNet's largest has 15 MB

_FOLDER = -1  # stands for the size of a folder
_CHUNK = 8192  # files whose names become Python objects at once
_WHOLE_BYTES = 2 * 2**30  # the content of a dataset up to here is read as a whole to tell it from another
_SPREAD = 4096  # files of a larger dataset that are read, evenly spread
_THREADS = 16  # threads that read for it: on a network disk most of the time is waiting
# Errors that say that a file is not to be had, now or later; others, as of a disk that fails, are no reason to leave it out.
_NOT_TO_BE_HAD = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENXIO)


class ImageFiles(abc.ABC):
    """Some image files in a fixed order.

    Attributes:
        names: a name for each, relative to the dataset, the same on every machine.
        num_bytes: int64 [N], the size of each.
        stamps: int64 [N], for each a number that changes when the file's content does (modification time, or checksum).
        location: where they are on this machine.
        licences: of files that come with packages, name to under what they may be shown; empty: of other files.
        note: what must be said beside every number that is measured on them; empty: nothing.
    """

    names: Names
    num_bytes: np.ndarray
    stamps: np.ndarray
    location: Path
    licences: Mapping[str, str] = {}
    note: str = ""
    _per_file: tuple[str, ...] = ("names", "num_bytes", "stamps")  # attributes with an entry for each file
    _handle: str | None = None  # attribute that does not travel to other processes, and that `_open` sets

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != self._handle}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self._handle is not None:
            self._open()

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
        """Return what an error calls file number `index`; it need not be where the file is, if that is no text."""
        return Path(readable(str(self.location / self.names[index])))

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

    def content(self) -> str:
        """Return 12 hex digits of what is in the files, the same wherever and whenever they were copied to.

        All are read, or of more than `_WHOLE_BYTES` only `_SPREAD` of them, evenly spread: of a dataset that large it tells
        another one, or a part that was replaced, but not a few files.
        """
        num_read = len(self) if self.num_bytes.sum() <= _WHOLE_BYTES else min(len(self), _SPREAD)
        places = np.linspace(0, len(self) - 1, num_read).astype(np.int64).tolist()
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(self._checksum, places)
            bar = progress_bar(found, total=num_read, desc="reading the files", unit=" files", leave=False, delay=1.0)
            checksums = list(bar)
        return hashlib.sha256(np.array([len(self), *checksums], "<i8").tobytes()).hexdigest()[:12]

    def _checksum(self, index: int) -> int:
        """Return the CRC-32 of a file, or -1 where it cannot be read, which is said where it is decoded."""
        try:
            return zlib.crc32(self.read(index))
        except ValueError:
            return -1

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
        paths = {name: self._place(name) for name in dict.fromkeys(names)}  # photographs repeat
        stats = {name: _status(functools.partial(os.stat, path)) for name, path in paths.items()}
        self.num_bytes = np.array([stats[name].st_size if stats[name] else 0 for name in names], np.int64)
        self.stamps = np.array([stats[name].st_mtime_ns if stats[name] else 0 for name in names], np.int64)

    @classmethod
    def scan(cls, location: Path) -> Self:
        """Return all images of a folder and its subfolders, sorted by their paths; says what is left out."""
        files = cls(location, [])
        num_bytes, stamps = [files.num_bytes], [files.stamps]
        left_out, folders = LeftOut(), set()

        def names() -> Iterator[bytes]:
            for run in scan_images(location, left_out):
                check_no_twins(run.names, location)
                folders.add(run.names[0].rpartition(b"/")[0])
                num_bytes.append(run.num_bytes)
                stamps.append(run.stamps)
                yield from run.names

        files.names = Names.of(names())
        files.num_bytes, files.stamps = np.concatenate(num_bytes), np.concatenate(stamps)
        check_one_pool(folders, location)
        left_out.warn(location)
        return files

    def _place(self, name: str) -> str:
        return os.path.join(self.location, name)

    def read(self, index: int) -> bytes:
        try:
            with open(self._place(self.names[index]), "rb", buffering=0, opener=_open_at_once) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise ValueError(
                        f"The image {self.path(index)} cannot be read: it is no file, but a pipe or a device"
                    )
                self._check_size(index, status.st_size)
                return file.readall()
        except OSError as error:
            if error.errno not in _NOT_TO_BE_HAD:
                raise
            raise ValueError(f"The image {self.path(index)} cannot be read: {error.strerror}") from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer


def _status(look: Callable[[], os.stat_result]) -> os.stat_result | None:
    """Return what the system says of a file, or None where it is not to be had, which is said when it is read."""
    try:
        return look()
    except OSError as error:
        if error.errno not in _NOT_TO_BE_HAD:
            raise
        return None


class PhotoFiles(FolderFiles):
    """A few large photographs, each standing for many images: they stay decoded between two calls."""

    def __init__(
        self, places: Mapping[str, Path], names: Sequence[str], licences: Mapping[str, str] | None = None
    ) -> None:
        """List the images.

        Args:
            places: name of a photograph to its file; the folder of the first one is their `location`.
            names: of the photograph of each image.
            licences: as the attribute; None: empty.
        """
        self._places, self.licences = dict(places), dict(licences or {})
        super().__init__(next(iter(places.values())).parent, names)

    def _place(self, name: str) -> str:
        return str(self._places[name])

    def path(self, index: int) -> Path:
        return Path(readable(self._place(self.names[index])))

    def image(self, index: int) -> Image.Image:
        return _decoded_photo(self._places[self.names[index]])


@functools.lru_cache(maxsize=16)  # as many as a dataset has: its images take turns among them
def _decoded_photo(file: Path) -> Image.Image:
    return decode(file.read_bytes(), file.name)


class ZipFiles(ImageFiles):
    """Files of a zip archive, read without unpacking it, named by their last path component."""

    _per_file = (*ImageFiles._per_file, "_entries")
    _handle = "_archive"

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

    def _checksum(self, index: int) -> int:
        return int(self.stamps[index])


class FoundImages(NamedTuple):
    """Images of one folder that follow each other in sorted order: paths, and int64 [n] sizes and modification times."""

    names: list[bytes]
    num_bytes: np.ndarray
    stamps: np.ndarray


def scan_images(folder: Path, left_out: LeftOut | None = None) -> Iterator[FoundImages]:
    """Find the images of a folder and its subfolders.

    Hidden files and folders, those of the system and masks beside their images are left out; links to folders are followed,
    each folder once. A folder that may not be read is left out with a warning. A file that cannot be had, such as a link to
    nothing, is listed all the same, with no bytes: it is the dataset's to say so.

    Args:
        folder: an existing one.
        left_out: where to count what is left out.

    Returns:
        An iterator over images, at least one at a time; their paths are relative, with forward slashes, and sorted.
    """
    return _scan(os.fsencode(folder), b"", set(), LeftOut() if left_out is None else left_out)


def _scan(folder: bytes, prefix: bytes, seen: set[bytes], left_out: LeftOut) -> Iterator[FoundImages]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    names: list[bytes] = []
    sizes, stamps = array("q"), array("q")
    try:
        entries = os.scandir(folder)
    except PermissionError as error:
        warnings.warn(f"Images in {readable(folder)} are left out: {error.strerror}.", stacklevel=2)
        return
    with entries:
        for entry in entries:
            name = entry.name
            if is_folder(entry):
                # It sorts with the slash that its paths have: they come sorted, and never in one list.
                if not is_system_folder(name):
                    names.append(name + b"/")
                    sizes.append(_FOLDER)
                    stamps.append(0)
                elif count := _count_images(entry.path):
                    left_out.add(IN_SYSTEM_FOLDERS, prefix + name + b"/", count)
            elif not is_image_name(name):
                left_out.add_file(name, prefix + name)
            elif (status := _status(entry.stat)) and not stat.S_ISREG(status.st_mode):  # reading a pipe would never end
                left_out.add(NO_FILES, prefix + name)
            else:
                names.append(name)
                sizes.append(status.st_size if status else 0)
                stamps.append(status.st_mtime_ns if status else 0)
    masks = masks_among([name for name in names if not name.endswith(b"/")])
    for name in sorted(masks):
        left_out.add(MASKS, prefix + name)
    size_of, stamp_of = np.array(sizes, np.int64), np.array(stamps, np.int64)
    order = sorted((n for n in range(len(names)) if names[n] not in masks), key=names.__getitem__)
    for are_folders, run in itertools.groupby(order, lambda place: sizes[place] == _FOLDER):
        places = list(run)
        if not are_folders:
            yield FoundImages([prefix + names[place] for place in places], size_of[places], stamp_of[places])
            continue
        for place in places:
            name = names[place]
            yield from _scan(os.path.join(folder, name[:-1]), prefix + name, seen, left_out)


def is_folder(entry: os.DirEntry) -> bool:
    """Return whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or through a folder that may not be read
        return False


def _count_images(folder: bytes) -> int:
    return sum(is_image_name(name.lstrip(b".")) for _, _, names in os.walk(folder) for name in names)


def suffixes_in(folder: Path) -> dict[str, int]:
    """Return how many files of each suffix lie in a folder and its subfolders, the most frequent first."""
    names = (name for _, _, names in os.walk(os.fsencode(folder)) for name in names)
    found = Counter(suffix_of(name).decode("utf-8", "replace") for name in names)
    return dict(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))
