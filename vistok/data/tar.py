"""Where the images of a tar file lie: its headers are read, one after the other, and nothing is extracted.

Images are read later, at random, by offset. The standard library's reader would keep an object of a kilobyte for each
member, and read an extended header of any size.
"""

import os
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vistok.data.names import Names
from vistok.data.naming import IN_SYSTEM_FOLDERS, LeftOut, first_of_samples, is_image_name, is_system_path, suffix_of
from vistok.system.files import readable, shown

_BLOCK = 512
_MAX_EXTENDED_BYTES = 2**20  # an extended header holds a name and some numbers
_WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)


class TarImages(NamedTuple):
    """The images of a tar file, in its order: names, and int64 [N] sizes and offsets of their bytes; and what is left out."""

    names: Names
    num_bytes: np.ndarray
    offsets: np.ndarray
    left_out: LeftOut


class _Member(NamedTuple):
    """A member that is read or looked into: its name, size in bytes, and where its bytes begin in the file."""

    name: bytes
    num_bytes: int
    offset: int


def scan_tar(path: Path) -> TarImages:
    """Find the images of an uncompressed tar file (USTAR, PAX or GNU); members that are no images are ignored.

    Of several images of one sample only the image itself is taken (`first_of_samples`). A file that holds no image, but tar
    files, has the images of these, under their names: ImageNet is downloaded like that, with a tar file for each class.

    Raises:
        ValueError: the file is no tar, is damaged or cut off, or an image in it is a link, is sparse or has a name that leads
            out of the archive; or two images of a sample cannot be told apart.
    """
    with open(path, "rb", buffering=0) as file:
        descriptor = file.fileno()
        images, archives, left_out = _scan(descriptor, 0, os.fstat(descriptor).st_size, path)
        if not images:
            for name, num_bytes, offset in archives:
                _check_name(name, path)
                inner, _, left_out_inside = _scan(descriptor, offset, offset + num_bytes, path / readable(name))
                images += [each._replace(name=name[: -len(b".tar")] + b"/" + each.name) for each in inner]
                left_out.update(left_out_inside)
    kept, others = first_of_samples([image.name for image in images], path)
    left_out.update(others)
    images = [images[number] for number in kept]
    return TarImages(
        Names.of(image.name for image in images),
        np.array([image.num_bytes for image in images], np.int64),
        np.array([image.offset for image in images], np.int64),
        left_out,
    )


def _scan(descriptor: int, start: int, stop: int, path: Path) -> tuple[list[_Member], list[_Member], LeftOut]:
    """Return the images and the tar files between two bytes of an open file, and what is left out."""
    images: list[_Member] = []
    archives: list[_Member] = []
    left_out = LeftOut()
    place, long_name, records = start, None, {}
    while True:
        if place + _BLOCK > stop:
            raise ValueError(
                f"The shard {path} is cut off: it has {stop - start} bytes, and no block of zeros ends it."
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
        if header.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):  # about all members; about a link
            place = data + _padded(size)
            continue
        name = records.get(b"path") or long_name or header.name.encode("utf-8", "surrogateescape")
        if b"size" in records:  # more than the 8 GiB that a plain header can say
            size = _number(records[b"size"], place, path)
        if header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith(b"GNU.sparse") for key in records):
            raise ValueError(f"The shard {path} holds {_shown(name)} as a sparse file; pack it without --sparse.")
        short, last = name.removeprefix(b"./"), name.rpartition(b"/")[2]
        if is_system_path(short):
            if is_image_name(last.lstrip(b".")):
                left_out.add(IN_SYSTEM_FOLDERS, short)
        elif is_image_name(last):
            _check_image(header, name, path)
            images.append(_Member(short, size, data))
        elif header.isreg() and suffix_of(last) == b".tar":
            archives.append(_Member(short, size, data))
        else:
            left_out.add_file(last, short)
        place = data + (0 if header.type in _WITHOUT_DATA else _padded(size))
        long_name, records = None, {}
    return images, archives, left_out


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


def _check_image(header: tarfile.TarInfo, name: bytes, path: Path) -> None:
    if not header.isreg():
        kind = "a link" if header.issym() or header.islnk() else "no regular file"
        raise ValueError(
            f"The shard {path} holds {_shown(name)} as {kind}; pack it with --dereference --hard-dereference."
        )
    _check_name(name, path)


def _check_name(name: bytes, path: Path) -> None:
    if name.startswith(b"/") or b".." in name.split(b"/"):
        raise ValueError(f"The shard {path} holds {_shown(name)}, but a member's name is relative and without '..'.")


def _shown(name: bytes) -> str:
    return shown(name.decode("utf-8", "replace"))


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // _BLOCK) * _BLOCK
