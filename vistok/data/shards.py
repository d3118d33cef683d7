"""Images in WebDataset shards: .tar files, of which an index is made once and members are then read at random.

The index, one file for each place that shards lie in, says where each image begins, so that image i is as quick to reach as
in a folder and order, crops and resumption are what they are there. It lies beside the pixel caches, is renamed when
complete, and is made anew when a shard's name, size or modification time changed.
"""

import functools
import hashlib
import os
import warnings
import weakref
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vistok.data.cache import cache_folder, read_or_make
from vistok.data.files import ImageFiles
from vistok.data.names import Names
from vistok.data.naming import SUFFIXES, LeftOut, check_one_pool
from vistok.data.tar import scan_tar
from vistok.system.files import readable, replacing
from vistok.system.progress import progress_bar

_VERSION = 3  # goes up when the same shards give another index
_THREADS = 16  # threads that read headers: on a network disk most of the time is waiting
_MAX_OPEN = 64  # shards; a process may have 1024 files open, and ImageNet has as many shards


class Shard(NamedTuple):
    """A .tar or .parquet file as it was when its folder was opened: bytes, and modification time in ns."""

    path: str
    num_bytes: int
    stamp: int


class ShardIndex(NamedTuple):
    """Where the images of some shards lie, in the order of the shards and within them of their members.

    Attributes:
        blob: uint8 [B], the members' names in UTF-8, one after the other.
        stops: int64 [N], where each name ends in `blob`.
        num_bytes: int64 [N], the size of each image.
        offsets: int64 [N], where its bytes begin in its shard.
        shards: int32 [N], number of its shard.
    """

    blob: np.ndarray
    stops: np.ndarray
    num_bytes: np.ndarray
    offsets: np.ndarray
    shards: np.ndarray


class TarFiles(ImageFiles):
    """Images in .tar files, named as their members are; read by threads and forked processes at once without a lock."""

    _per_file = (*ImageFiles._per_file, "_offsets", "_numbers")

    def __init__(self, location: Path, shards: Sequence[Shard], index: ShardIndex) -> None:
        self.location, self._shards = location, list(shards)
        self.names, self.num_bytes = Names.packed(index.blob, index.stops), index.num_bytes
        self._offsets, self._numbers = index.offsets, index.shards
        self.stamps = np.array([shard.stamp for shard in shards], np.int64)[index.shards]

    def path(self, index: int) -> Path:
        return Path(readable(f"{self._shards[self._numbers[index]].path}/{self.names[index]}"))

    def read(self, index: int) -> bytes:
        num_bytes = int(self.num_bytes[index])
        self._check_size(index, num_bytes)
        descriptor = _opened(self._shards[self._numbers[index]])
        data = os.pread(descriptor.number, num_bytes, int(self._offsets[index]))
        if len(data) < num_bytes:
            raise OSError(f"The shard of {self.path(index)} was cut off since its dataset was opened.")
        return data


def open_shards(folder: Path, names: Sequence[str], *, one_pool: bool = True) -> TarFiles:
    """Open the images of some shards, making their index where there is none that fits.

    Args:
        folder: that they lie in.
        names: their file names, at least one.
        one_pool: whether folders in them that look like different splits are refused; False: the caller tells them apart.

    Raises:
        ValueError: a shard is damaged, cut off or no tar file.
        OSError: a shard cannot be read, or the index not be written.
    """
    shards = [shard_at(folder / name) for name in names]
    key = shards_key(shards)
    path = index_path(folder, names)

    def make() -> ShardIndex:
        index = _make_index(folder, shards, path.stem, one_pool)
        write_index(path, key, index)
        return index

    return TarFiles(folder, shards, read_or_make(path, lambda say_why: _read_if_good(path, key, say_why), make))


def index_path(folder: Path, names: Sequence[str]) -> Path:
    """Return where the index of the shards called `names` in `folder` lies."""
    place = zlib.crc32(os.fsencode(folder.resolve() / names[0]))
    return cache_folder() / f"shards-{place:08x}.index"


def shards_key(shards: Sequence[Shard]) -> str:
    """Return what an index holds of its shards: 64 hex digits of their names, sizes and modification times."""
    seen = [(os.path.basename(shard.path), shard.num_bytes, shard.stamp) for shard in shards]
    return hashlib.sha256(repr((_VERSION, sorted(SUFFIXES), seen)).encode("utf-8", "surrogateescape")).hexdigest()


def write_index(path: Path, key: str, index: ShardIndex) -> None:
    """Write an index whole or not at all."""
    for leftover in path.parent.glob(f".{path.name}.*.part"):  # a killed process has left it; the lock is the caller's
        leftover.unlink(missing_ok=True)
    with replacing(path) as file:
        np.savez(file, key=np.array(key), **index._asdict())  # a zip file: each array has its checksum


def _read_if_good(path: Path, key: str, say_why: bool) -> ShardIndex | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                raise ValueError("the shards changed since, or another version of vistok made it")
            return ShardIndex(**{name: arrays[name] for name in ShardIndex._fields})
    except Exception as error:  # a damaged file raises whatever the parser of the zip or of an array meets first
        if say_why:
            reason = str(error) if isinstance(error, ValueError) else f"it is damaged ({error})"
            warnings.warn(f"The index {path.name} of shards is made again: {reason}.", stacklevel=5)
        return None


def _make_index(folder: Path, shards: Sequence[Shard], label: str, one_pool: bool) -> ShardIndex:
    with ThreadPoolExecutor(_THREADS) as pool:
        found = [pool.submit(scan_tar, Path(shard.path)) for shard in shards]
        try:
            scans = [scan.result() for scan in progress_bar(found, desc=label, unit=" shards", leave=False, delay=1.0)]
        finally:  # after a damaged shard or Ctrl-C nothing more is begun
            pool.shutdown(wait=True, cancel_futures=True)
    left_out = LeftOut()
    for scan in scans:
        left_out.update(scan.left_out)
    if one_pool:
        names = (bytes(name) for scan in scans for name in scan.names.encoded(0, len(scan.names)))
        check_one_pool({name.rpartition(b"/")[0] for name in names}, folder)
    left_out.warn(folder)
    counts = [len(scan.names) for scan in scans]
    blobs = [scan.names.blob for scan in scans]
    ends = np.cumsum([0, *map(len, blobs)])
    return ShardIndex(
        blob=np.concatenate(blobs),
        stops=np.concatenate([scan.names.stops + end for scan, end in zip(scans, ends[:-1], strict=True)]),
        num_bytes=np.concatenate([scan.num_bytes for scan in scans]),
        offsets=np.concatenate([scan.offsets for scan in scans]),
        shards=np.repeat(np.arange(len(shards), dtype=np.int32), counts),
    )


def shard_at(path: Path) -> Shard:
    """Return a file as it is now."""
    status = path.stat()
    return Shard(str(path), status.st_size, status.st_mtime_ns)


class _Descriptor:
    """An open file, closed when the last reader lets go of it: a thread may still read one that gave way to another."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.number)


@functools.lru_cache(maxsize=_MAX_OPEN)
def _opened(shard: Shard) -> _Descriptor:
    descriptor = _Descriptor(shard.path)
    status = os.fstat(descriptor.number)
    if (status.st_size, status.st_mtime_ns) != shard[1:]:
        raise OSError(f"The shard {shard.path} changed since its dataset was opened; open it again.")
    return descriptor
