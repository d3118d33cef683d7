"""Files of unknown origin: their bytes to named tensors, which are read when they are asked for."""

import contextlib
import functools
import io
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import safetensors

from vistok.pretrained.unpickling import LazyTensor, Unpickler

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # how PyTorch's files begin, since 1.6 and before
_SHORT_HEADER = (
    bytes(4) + b"{"
)  # of safetensors: its length may begin as a pickle does, but below 4 GiB it ends in zeros
_MAGIC_NUMBER, _PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001  # PyTorch's, of files before 1.6


@contextlib.contextmanager
def unreadable_as_value_error(path: Path) -> Iterator[None]:
    """Turn whatever is raised while a file is read into a sentence about that file.

    Args:
        path: the file.

    Raises:
        ValueError: anything was raised.
    """
    try:
        yield
    except Exception as error:  # a broken or hostile file raises whatever its bytes spell
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error}). If it should be one, its download "
            "may have broken off: compare its size."
        ) from error


def open_checkpoint(path: Path, files: contextlib.ExitStack) -> object:
    """Return what a file holds, its tensors as `LazyTensor`; nothing in it is executed.

    Args:
        path: a file of PyTorch, as it writes them since 1.6 or before, or of safetensors.
        files: closes what must stay open while tensors are read.

    Raises:
        Exception: the file is damaged or none of these: see `unreadable_as_value_error`.
    """
    file = files.enter_context(path.open("rb"))
    head = file.read(9)
    file.seek(0)
    if head.startswith(_ZIP):
        return _open_zip(files.enter_context(zipfile.ZipFile(file)))
    if head.startswith(_PICKLE) and head[4:] != _SHORT_HEADER:
        return _open_legacy(file)
    if head[8:] == b"{":
        tensors = files.enter_context(safetensors.safe_open(path, framework="pt"))
        return {
            name: LazyTensor(tuple(tensors.get_slice(name).get_shape()), functools.partial(tensors.get_tensor, name))
            for name in tensors.keys()  # noqa: SIM118 (no mapping)
        }
    raise ValueError("it begins like none")


def _open_zip(archive: zipfile.ZipFile) -> object:
    """A file of PyTorch since 1.6: a pickle, and one record a storage."""
    pickles = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("it is a zip archive without PyTorch's data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    unpickler = Unpickler(io.BytesIO(archive.read(pickles[0])), lambda key: archive.read(f"{folder}data/{key}"))
    return unpickler.load()


def _open_legacy(file: BinaryIO) -> object:
    """A file of PyTorch before 1.6: five pickles, then the storages one after the other, each after its length."""
    places: dict[str, tuple[int, int]] = {}  # offset and bytes of each storage

    def read_storage(key: str) -> bytes:
        offset, num_bytes = places[key]
        file.seek(offset)
        return file.read(num_bytes)

    header = [Unpickler(file, read_storage).load() for _ in range(3)]  # the third describes the machine
    if header[:2] != [_MAGIC_NUMBER, _PROTOCOL_VERSION]:
        raise ValueError("it is a pickle, but not one of PyTorch's")
    unpickler = Unpickler(file, read_storage)
    content = unpickler.load()
    for key in Unpickler(file, read_storage).load():
        (length,) = struct.unpack("<q", file.read(8))
        places[key] = (file.tell(), length * unpickler.dtypes[key].itemsize)
        file.seek(places[key][1], os.SEEK_CUR)
    return content
