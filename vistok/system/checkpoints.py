"""The training state on disk: every file whole or not there, checked when it is read, the last two kept.

A checkpoint is what `torch.save` writes, a ZIP archive of tensors and plain containers, with the SHA-256 of its content as the
archive's comment. Any reader of ZIP archives reads it, `torch.load` too; neither would notice a changed bit.
"""

import hashlib
import struct
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch

from vistok.system.files import replacing

KEPT = 2
_COMMENT = "sha256:"  # and 64 hex digits
_LENGTH = struct.Struct("<H")  # length of the comment; it ends an archive that has none
_TAIL_BYTES = _LENGTH.size + len(_COMMENT) + 64


class Checkpoints:
    """The checkpoints of a run, `step-<9 digits>.pt` in one folder.

    Attributes:
        folder: where they are; made by `save`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        """Return the files, oldest first."""
        return sorted(self.folder.glob("step-*.pt"))

    def save(self, state: dict[str, Any], step: int) -> Path:
        """Write the state of a step, and return its file; of older ones the last stays.

        One of a later step is a damaged one, which `load` passed over: it is set aside, as `<name>.damaged`.

        Raises:
            OSError: it cannot be written; those that are there stay.
        """
        self.folder.mkdir(exist_ok=True)
        file = self.folder / f"step-{step:09d}.pt"
        with replacing(file) as stream:
            hashed = _Hashed(stream)
            try:
                torch.save(state, hashed)
            except RuntimeError as error:  # PyTorch's words for a failed write name no cause
                raise hashed.error or error from error
            _add_comment(stream, hashed.digest.hexdigest())
        for later in self.files():
            if later > file:
                later.rename(later.with_name(f"{later.name}.damaged"))
        for old in self.files()[:-KEPT]:
            old.unlink()
        return file

    def load(self, *, mapped: bool = False) -> tuple[dict[str, Any], Path] | None:
        """Return the newest state that is whole, and its file; None where there is no file. Warns of damaged ones.

        Args:
            mapped: leave tensors in the file, mapped into memory, for a reader who wants few of them.

        Raises:
            ValueError: there are files, and all of them are damaged.
        """
        damaged = []
        for file in reversed(self.files()):
            try:
                state = _read(file, mapped)
            except ValueError as error:
                damaged.append(f"{file.name} {error}")
                continue
            if damaged:
                warnings.warn(f"Of the checkpoints {'; '.join(damaged)}: going on from {file.name}.", stacklevel=2)
            return state, file
        if damaged:
            raise ValueError(
                f"No checkpoint in {self.folder} can be used: {'; '.join(damaged)}. To train the run again, set start_over "
                "(what is there is set aside, not deleted), or give another run_dir."
            )
        return None


def step_of(file: Path) -> int:
    """Return the step that a checkpoint file's name says."""
    return int(file.stem.removeprefix("step-"))


class _Hashed:
    """A file open for writing that hashes what is written, and keeps the error of a write that fails."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.digest = stream, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        try:
            written = self.stream.write(data)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(data)
        return written

    def flush(self) -> None:
        self.stream.flush()


def _add_comment(stream: BinaryIO, hexdigest: str) -> None:
    """Append a comment to the ZIP archive just written; it ends in the length of a comment, of none so far."""
    comment = f"{_COMMENT}{hexdigest}".encode()
    stream.seek(-_LENGTH.size, 2)
    stream.write(_LENGTH.pack(len(comment)) + comment)


def _read(file: Path, mapped: bool) -> dict[str, Any]:
    """Return the state in a file; raises ValueError, the end of a sentence about it, where it is not as it was written."""
    with file.open("rb") as stream:
        num_bytes = stream.seek(0, 2) - _TAIL_BYTES
        stream.seek(max(0, num_bytes))
        comment = stream.read()[_LENGTH.size :]
        if num_bytes < 0 or not comment.startswith(_COMMENT.encode()):
            raise ValueError("is cut off or no checkpoint")
        digest = hashlib.sha256()
        stream.seek(0)
        while num_bytes > 0:
            digest.update(block := stream.read(min(num_bytes, 2**22)))
            num_bytes -= len(block)
    digest.update(_LENGTH.pack(0))
    if digest.hexdigest() != comment.decode(errors="replace").removeprefix(_COMMENT):
        raise ValueError("has another SHA-256 than when it was written")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # whole but not ours; torch raises many kinds
        raise ValueError(f"cannot be read ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise ValueError("holds no training state")
    return state
