"""Uncompressed copies of .gz files in the folder of caches: what lies in them is then read at random, as from any file."""

import gzip
import hashlib
import os
import zlib
from pathlib import Path

from vistok.data.cache import cache_folder, read_or_make
from vistok.system.files import replacing
from vistok.system.progress import progress_bar
from vistok.system.weights import first_line

_CHUNK = 2**20  # bytes unpacked at once


def unpacked(archive: Path, most_bytes: int) -> Path:
    """Return an uncompressed copy of a .gz file, made where there is none that fits; its modification time is the file's.

    Args:
        archive: the .gz file.
        most_bytes: that it may hold: what it says of that itself need not be true.

    Raises:
        ValueError: it is damaged, cut off, or holds more.
        OSError: the copy cannot be written.
    """
    status = archive.stat()
    place = f"unpacked-{zlib.crc32(os.fsencode(archive.resolve())):08x}"
    key = hashlib.sha256(repr((archive.name, status.st_size, status.st_mtime_ns)).encode()).hexdigest()[:8]
    copy = cache_folder() / f"{place}-{key}.copy"

    def make() -> Path:
        for pattern in (f"{place}-*.copy", f".{place}-*.part"):  # of the file before it changed; a killed process's
            for leftover in copy.parent.glob(pattern):
                leftover.unlink(missing_ok=True)
        _unpack(archive, copy, most_bytes, status.st_mtime_ns)
        return copy

    return read_or_make(copy, lambda _say_why: copy if copy.is_file() else None, make)


def _unpack(archive: Path, copy: Path, most_bytes: int, stamp: int) -> None:
    num_bytes = 0
    bar = progress_bar(desc=f"unpacking {archive.name}", unit="B", unit_scale=True, leave=False, delay=1.0)
    with bar, replacing(copy) as file, gzip.open(archive) as packed:
        while chunk := _next_chunk(packed, archive):
            num_bytes += len(chunk)
            if num_bytes > most_bytes:
                raise ValueError(f"{archive} holds more than {most_bytes:,} bytes, so it is not what its name says.")
            file.write(chunk)
            bar.update(len(chunk))
        file.flush()
        os.utime(file.fileno(), ns=(stamp, stamp))  # a copy that is made again is the same to an index of it


def _next_chunk(packed: gzip.GzipFile, archive: Path) -> bytes:
    try:
        return packed.read(_CHUNK)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{archive} is no .gz file, is damaged, or its download was cut off: {first_line(error)}."
        ) from error
