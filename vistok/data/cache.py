"""The pixel cache: the deterministic part of the preprocessing, done once into a memory-mapped uint8 array.

One file per dataset, split and size, in `$VISTOK_CACHE` (default `~/.cache/vistok`). It begins with the pixels, uint8
[N, S, S, 3], and ends with a description in JSON and a trailer that holds the description's length and checksum, so a
file that lost its end, or never had one, is recognised. It is written under a temporary name and renamed when complete;
a file built from something else than is wanted (files, sizes, modification times, settings, code version) is rebuilt.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import struct
import tempfile
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

import filelock
import numpy as np

from vistok.system.files import replace_file, strict_json
from vistok.system.paths import path_from_environment
from vistok.system.progress import progress_bar

CODE_VERSION = 2  # goes up when the same files and settings give other pixels

_MAGIC = b"vistokpx"
_TRAILER = struct.Struct("<8sQ32s")  # magic, length of the description, its SHA-256
_MAX_DESCRIPTION_BYTES = 2**28  # 200 for each of ImageNet's images, were none of them readable
_CHUNK = 64  # images a thread renders between two reports
_CHECKED_ROWS = 16  # rows whose checksums the description holds: a full one would read the whole file

Value = TypeVar("Value")


def cache_folder() -> Path:
    """Return where pixel caches lie: `$VISTOK_CACHE`, or `~/.cache/vistok`."""
    return path_from_environment("VISTOK_CACHE", "~/.cache/vistok")


def make_cache_folder() -> None:
    """Make the folder of caches where it is not there; raises OSError where it cannot be made or written."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"The cache folder {folder} cannot be made ({error}); set VISTOK_CACHE.") from error
    if not os.access(folder, os.W_OK):
        raise OSError(f"The cache folder {folder} cannot be written; set VISTOK_CACHE to one that can.")


def read_or_make(path: Path, read: Callable[[bool], Value | None], make: Callable[[], Value]) -> Value:
    """Return what a file of the cache holds, made first where there is none that fits; of several processes one makes it.

    Args:
        path: the file.
        read: returns what it holds, or None where it does not fit; its argument says whether to warn of that.
        make: writes the file, and returns what it holds.

    Raises:
        OSError: the folder of caches cannot be made or written.
    """
    if (found := read(False)) is None:
        make_cache_folder()
        with filelock.FileLock(path.with_suffix(".lock")):  # the others wait for it
            if (found := read(True)) is None:
                found = make()
    return found


def remembered(name: str, key: str, compute: Callable[[], str]) -> str:
    """Return a text that is computed once for each `key`, and then found again in the folder of caches.

    Args:
        name: of its file, without suffix; one place for each dataset, split and setting.
        key: changes whenever the text would.
        compute: makes the text.

    Returns:
        the text; where the folder cannot be written it is computed at every call.
    """
    path = cache_folder() / f"{name}.json"

    def read(_say_why: bool) -> str | None:
        try:
            there = strict_json(path.read_bytes())
            return str(there["text"]) if there["key"] == key else None
        except (OSError, ValueError, TypeError, KeyError):  # there is none, or it is damaged
            return None

    def make() -> str:
        text = compute()
        replace_file(path, json.dumps({"key": key, "text": text}).encode())
        return text

    if (text := read(False)) is not None:
        return text
    try:
        make_cache_folder()
    except OSError:  # it belongs to others, who have made its caches
        return compute()
    return read_or_make(path, read, make)


class PixelCache:
    """Squares of uint8 pixels in a file, mapped into memory and read row by row.

    Attributes:
        pixels: uint8 [N, S, S, 3]; rows of unreadable images are zero.
        unreadable: the images without pixels by rising index, each with the reason.
        note: what is to be said of the images whenever they are opened; empty: nothing.
    """

    def __init__(self, path: Path, key: str) -> None:
        """Map the cache at `path`; raises ValueError where it is damaged or belongs to another `key`."""
        self._path, self._key = path, key
        description = _read_description(path)
        if description["key"] != key:
            raise ValueError("the files or the settings changed since")
        shape = tuple(description["shape"])
        self.unreadable: list[tuple[int, str]] = [(index, reason) for index, reason in description["unreadable"]]
        self.note: str = description.get("note", "")
        mapped = 0 not in shape
        self.pixels = np.asarray(np.memmap(path, np.uint8, "r", shape=shape)) if mapped else np.zeros(shape, np.uint8)
        if _row_checksums(self.pixels) != description["checksums"]:
            raise ValueError("pixels are damaged")

    def __getstate__(self) -> dict:
        return {"path": self._path, "key": self._key}  # a mapped array would travel as its whole content

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)


def open_pixel_cache(
    name: str,
    key: str,
    num_images: int,
    size: int,
    render: Callable[[int], np.ndarray | None],
    *,
    keep_going: bool,
    note: Callable[[], str] = str,
    num_threads: int | None = None,
) -> PixelCache:
    """Return the cache called `name`, built first where there is none that fits.

    Args:
        name: of its file, without suffix; one place for each dataset, split and setting.
        key: changes whenever the pixels would.
        num_images: N, rows.
        size: S, pixels of height and width; 0 stores no pixels, only which images are unreadable.
        render: gives the pixels of one image, uint8 [S, S, 3]; a ValueError says that the image is unreadable.
        keep_going: go on after an unreadable image and list it; otherwise its ValueError ends the build.
        note: asked once all images are rendered for what is to be said of them (`PixelCache.note`).
        num_threads: that render; None: as many as there are processors.

    Raises:
        ValueError: an image is unreadable, and `keep_going` is false.
        OSError: the cache cannot be written, or does not fit on the disk.
    """
    path = cache_folder() / f"{name}.pixels"

    def read(say_why: bool) -> PixelCache | None:
        if not path.exists():
            return None
        try:
            return PixelCache(path, key)
        except (ValueError, OSError) as error:
            if say_why:
                warnings.warn(f"The pixel cache {path.name} is built again: {error}.", stacklevel=5)
            return None

    def make() -> PixelCache:
        _build(path, key, num_images, size, render, keep_going, note, num_threads or os.cpu_count() or 1)
        return PixelCache(path, key)

    return read_or_make(path, read, make)


def _build(
    path: Path,
    key: str,
    num_images: int,
    size: int,
    render: Callable[[int], np.ndarray | None],
    keep_going: bool,
    note: Callable[[], str],
    num_threads: int,
) -> None:
    shape = (num_images, size, size, 3)
    num_bytes = num_images * size * size * 3
    if (free := shutil.disk_usage(path.parent).free) < num_bytes:
        raise OSError(
            f"The pixel cache needs {num_bytes / 1e9:.1f} GB, but {path.parent} has {free / 1e9:.1f} GB free; "
            "set VISTOK_CACHE to a larger disk."
        )
    for leftover in path.parent.glob(f"{path.stem}.*.tmp"):  # a build that was killed has left it; the lock is ours
        leftover.unlink(missing_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}.", suffix=".tmp")
    os.close(descriptor)
    try:
        pixels = np.memmap(temporary, np.uint8, "w+", shape=shape) if num_bytes else np.zeros(shape, np.uint8)
        unreadable = _render_all(pixels, render, keep_going, num_threads, label=path.stem)
        if num_bytes:
            pixels.flush()
        description = {
            "key": key,
            "shape": shape,
            "unreadable": sorted(unreadable),
            "checksums": _row_checksums(pixels),
            "note": note(),
        }
        del pixels
        text = json.dumps(description).encode()
        with open(temporary, "ab") as file:
            file.write(text + _TRAILER.pack(_MAGIC, len(text), hashlib.sha256(text).digest()))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):  # it is gone where it was renamed
            os.unlink(temporary)


def _render_all(
    pixels: np.ndarray, render: Callable[[int], np.ndarray | None], keep_going: bool, num_threads: int, label: str
) -> list[tuple[int, str]]:
    """Fill `pixels`, uint8 [N, S, S, 3], by threads (decoding and resizing release the GIL); return what has none."""
    unreadable: list[tuple[int, str]] = []
    stopped = threading.Event()
    with (
        progress_bar(total=len(pixels), desc=f"pixel cache {label}", unit=" images", leave=False, delay=1.0) as bar,
        ThreadPoolExecutor(num_threads) as pool,
    ):

        def render_chunk(start: int) -> None:
            indices = range(start, min(start + _CHUNK, len(pixels)))
            for index in indices:
                if stopped.is_set():
                    return
                try:
                    square = render(index)
                    if square is not None:
                        pixels[index] = square
                except ValueError as error:
                    if not keep_going:
                        raise
                    unreadable.append((index, str(error)))
            bar.update(len(indices))

        futures = [pool.submit(render_chunk, start) for start in range(0, len(pixels), _CHUNK)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # after an error or Ctrl-C nothing more is begun
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
    for future in futures:
        if not future.cancelled():
            future.result()
    return unreadable


def _read_description(path: Path) -> dict:
    with open(path, "rb") as file:
        num_bytes = file.seek(0, os.SEEK_END)
        if num_bytes < _TRAILER.size:
            raise ValueError("it is cut off")
        file.seek(num_bytes - _TRAILER.size)
        magic, length, checksum = _TRAILER.unpack(file.read(_TRAILER.size))
        if magic != _MAGIC or length > min(num_bytes - _TRAILER.size, _MAX_DESCRIPTION_BYTES):
            raise ValueError("it is cut off or no pixel cache")
        file.seek(num_bytes - _TRAILER.size - length)
        text = file.read(length)
    if hashlib.sha256(text).digest() != checksum:
        raise ValueError("its description is damaged")
    description = strict_json(text)
    if not _describes_pixels(description, num_bytes - _TRAILER.size - length):
        raise ValueError("its description is none of a pixel cache, or its size is not that of its pixels")
    return description


def _describes_pixels(description: object, num_bytes: int) -> bool:
    """Return whether a description has all its entries, each of its type, and fits this many bytes of pixels."""
    if not isinstance(description, dict) or not {"key", "shape", "unreadable", "checksums"} <= description.keys():
        return False
    shape, unreadable, checksums = (description[name] for name in ("shape", "unreadable", "checksums"))
    if type(shape) is not list or len(shape) != 4 or not all(_is_count(length) for length in shape):
        return False
    if shape[1:] != [shape[1], shape[1], 3] or math.prod(shape) != num_bytes:
        return False
    if type(unreadable) is not list or type(checksums) is not list or not all(_is_count(crc) for crc in checksums):
        return False
    texts = (description["key"], description.get("note", ""))  # older caches have no note
    return all(type(text) is str for text in texts) and all(
        type(entry) is list and len(entry) == 2 and _is_count(entry[0], shape[0]) and type(entry[1]) is str
        for entry in unreadable
    )


def _is_count(value: object, end: int = 2**62) -> bool:
    return type(value) is int and 0 <= value < end


def _row_checksums(pixels: np.ndarray) -> list[int]:
    if not pixels.size:
        return []
    rows = np.linspace(0, len(pixels) - 1, min(_CHECKED_ROWS, len(pixels))).astype(int)
    return [zlib.crc32(np.ascontiguousarray(pixels[row])) for row in rows]
