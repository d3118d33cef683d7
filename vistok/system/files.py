"""Files: written whole or not at all, and read as what a stranger may have written; and what is said on standard output."""

import contextlib
import errno
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psutil
from tqdm import tqdm

from vistok.system.progress import on_page

MAX_NESTING = 32  # lists and dicts in one another, in what is read from a file; none of the package's own has 8
PROBE_BYTES = 2**16  # more than any record has
MAX_SHOWN = 200  # characters of a value in an error sentence
TOO_DEEP = f"lists and dicts are nested deeper than {MAX_NESTING} levels"


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file whole or not at all: to a new name beside it, synced, then renamed over the old one.

    Yields:
        the new file, open for reading and writing.

    Raises:
        OSError: there is a device or a pipe, as /dev/null, which a file would replace for everybody; or it cannot be written.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # of a folder the system says that it is one
        raise OSError(f"{path} is a device or a pipe, and no file that could be replaced.")
    part = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.part")
    try:
        with part.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        if os.name == "posix":  # the new name is on the disk once the folder is
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            except OSError as error:
                if error.errno != errno.EINVAL:  # some network disks cannot sync a folder, and need not
                    raise
            finally:
                os.close(folder)
    finally:
        part.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        OSError: a file is in the way, which the sentence names; or the folder cannot be made.
    """
    in_the_way = next((part for part in (folder, *folder.parents) if part.exists() and not part.is_dir()), None)
    if in_the_way:
        raise NotADirectoryError(f"{in_the_way} is a file, and no folder in which anything could be written.")
    folder.mkdir(parents=True, exist_ok=True)


def check_writable(folder: Path) -> None:
    """Write and delete a file: rights do not tell of a full or a read-only disk.

    Raises:
        OSError: that cannot be done.
    """
    part = folder / f".probe.{platform.node()}.{os.getpid()}.part"
    try:
        with part.open("wb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        part.unlink(missing_ok=True)


def left_behind(part: Path) -> bool:
    """Return whether a `.part` file is that of a writer on this machine which is no more."""
    host, _, pid = part.name.removesuffix(".part").rpartition(".")
    return host.endswith(f".{platform.node()}") and pid.isdecimal() and not psutil.pid_exists(int(pid))


def shown(value: object) -> str:
    """Return `repr(value)` for an error sentence, cut where it is long; what a file holds may have any size."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of more digits than Python writes, or deeply nested lists
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def say(text: str, *, warning: bool = False) -> None:
    """Print a text, around progress bars; what the output's encoding lacks (a table's arrows, a file's name) is escaped.

    Under cp1252 or ASCII `print` raises instead, which would end a program after its work.

    Args:
        text: what to print.
        warning: print it on standard error, so that it is also seen where results are collected, not shown; but not on a
            page, where standard error is a red box, and what is said here is no failure.
    """
    stream = sys.stderr if warning and not on_page() else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def readable(name: str | bytes) -> str:
    """Return a file's name as text that can be printed, drawn and sent: bytes that are no UTF-8 are written out.

    Python keeps such bytes as lone surrogates, so that the file is found again, but no encoding takes them.
    """
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    return text.encode("utf-8", "backslashreplace").decode()


def strict_json(text: str | bytes) -> Any:
    """Return what JSON text of unknown origin says.

    Args:
        text: UTF-8 where it is bytes.

    Raises:
        ValueError: it is no JSON, names a key twice, has NaN or an infinity, or is nested deeper than `MAX_NESTING`.
    """

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise ValueError(f"the key {shown(name)} stands there twice, but must be there once")
            found[name] = value
        return found

    def no_number(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON; a finite one must be there")

    try:
        value = json.loads(text, object_pairs_hook=object_of, parse_constant=no_number)
    except RecursionError as error:  # the parser calls itself for every level
        raise ValueError(TOO_DEEP) from error
    check_nesting(value)
    return value


def json_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file of unknown origin holds.

    Raises:
        ValueError: it holds none; the sentence names the file.
        OSError: it cannot be read.
    """
    try:
        value = strict_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or no JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds {shown(value)}, but must hold an object of names and values.")
    return value


def check_nesting(value: Any) -> None:
    """Raise ValueError where dicts and lists lie deeper than `MAX_NESTING` in one another."""
    level = [value]
    for _ in range(MAX_NESTING + 1):
        inner = [v for v in level if isinstance(v, dict | list | tuple)]
        level = [child for v in inner for child in (v.values() if isinstance(v, dict) else v)]
        if not level:
            return
    raise ValueError(TOO_DEEP)
