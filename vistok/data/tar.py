"""Where the images of a tar file lie: its headers are read, one after the other, and nothing is extracted.

Images are read later, at random, by offset. The standard library's reader would keep an object of a kilobyte for each
member, and read an extended header of any size.
"""

import os
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vistok.data.files import is_hidden_folder, is_image_name
from vistok.data.names import Names
from vistok.files import shown

_BLOCK = 512
_MAX_EXTENDED_BYTES = 2**20  # of an extended header, which holds a name and some numbers
_WITHOUT_DATA = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)


class TarImages(NamedTuple):
    """The images of a tar file, in its order: names, and int64 [N] sizes and offsets of their bytes."""

    names: Names
    num_bytes: np.ndarray
    offsets: np.ndarray


def scan_tar(path: Path) -> TarImages:
    """Find the images of an uncompressed tar file (USTAR, PAX or GNU); members that are no images are ignored.

    Raises:
        ValueError: the file is no tar, is damaged or cut off, or an image in it is a link, is sparse or has a name that leads
            out of the archive.
    """
    names: list[bytes] = []
    sizes: list[int] = []
    offsets: list[int] = []
    with open(path, "rb", buffering=0) as file:
        descriptor = file.fileno()
        file_bytes = os.fstat(descriptor).st_size
        place, long_name, records = 0, None, {}
        while True:
            if place + _BLOCK > file_bytes:
                raise ValueError(
                    f"The shard {path} is cut off: it has {file_bytes} bytes, and no block of zeros ends it."
                )
            block = os.pread(descriptor, _BLOCK, place)
            if not any(block):
                break
            header = _header(block, place, path)
            data, size = place + _BLOCK, header.size
            if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME):
                if size > _MAX_EXTENDED_BYTES:
                    raise ValueError(f"The shard {path} is damaged: its header at byte {place} has {size} bytes.")
                content = os.pread(descriptor, size, data)
                if header.type == tarfile.GNUTYPE_LONGNAME:
                    long_name = content.split(b"\0", 1)[0]
                else:
                    records = _pax_records(content, place, path)
                place = data + _padded(size)
                continue
            if header.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):  # of all members; of a link
                place = data + _padded(size)
                continue
            name = records.get(b"path") or long_name or header.name.encode("utf-8", "surrogateescape")
            if b"size" in records:  # of more than the 8 GiB that a plain header can say
                size = _number(records[b"size"], place, path)
            is_sparse = header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith(b"GNU.sparse") for key in records)
            if is_sparse:
                raise ValueError(f"The shard {path} holds {_shown(name)} as a sparse file; pack it without --sparse.")
            if _is_image(name):
                _check_image(header, name, path)
                names.append(name.removeprefix(b"./"))
                sizes.append(size)
                offsets.append(data)
            place = data + (0 if header.type in _WITHOUT_DATA else _padded(size))
            long_name, records = None, {}
    return TarImages(Names.of(names), np.array(sizes, np.int64), np.array(offsets, np.int64))


def _header(block: bytes, place: int, path: Path) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise ValueError(
            f"The shard {path} is no uncompressed tar file, or is damaged at byte {place}: {error}."
        ) from error
    if header.size < 0:  # a binary number may be; the scan would go back and never end
        raise ValueError(f"The shard {path} is damaged: the member at byte {place} has {header.size} bytes.")
    return header


def _pax_records(content: bytes, place: int, path: Path) -> dict[bytes, bytes]:
    """Return the records, "<length> <key>=<value>\\n" each, of an extended header."""
    records, start = {}, 0
    while start < len(content) and content[start]:
        space = content.find(b" ", start, start + 20)
        length = _number(content[start : max(space, start)], place, path)
        stop = start + length
        key, equals, value = content[space + 1 : stop - 1].partition(b"=")
        if not equals or content[stop - 1 : stop] != b"\n":
            raise ValueError(f"The shard {path} is damaged: its extended header at byte {place} has no records.")
        records[key] = value
        start = stop
    return records


def _number(digits: bytes, place: int, path: Path) -> int:
    if not digits.isdigit() or len(digits) > 18:  # 18 digits fit into an int64
        raise ValueError(f"The shard {path} is damaged: its extended header at byte {place} says {digits[:20]!r}.")
    return int(digits)


def _is_image(name: bytes) -> bool:
    *folders, last = name.removeprefix(b"./").split(b"/")
    return is_image_name(last) and not any(
        is_hidden_folder(folder) for folder in folders if folder not in (b".", b"..")
    )


def _check_image(header: tarfile.TarInfo, name: bytes, path: Path) -> None:
    if not header.isreg():
        kind = "a link" if header.issym() or header.islnk() else "no regular file"
        raise ValueError(
            f"The shard {path} holds {_shown(name)} as {kind}; pack it with --dereference --hard-dereference."
        )
    if name.startswith(b"/") or b".." in name.split(b"/"):
        raise ValueError(f"The shard {path} holds {_shown(name)}, but a member's name is relative and without '..'.")


def _shown(name: bytes) -> str:
    return shown(name.decode("utf-8", "replace"))


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // _BLOCK) * _BLOCK
