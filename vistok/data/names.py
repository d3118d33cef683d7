"""The names of many files without a Python object for each: one run of bytes, and where each name begins and ends."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Self, overload

import numpy as np

_CODEC = ("utf-8", "surrogateescape")  # a name of a foreign encoding is kept, byte for byte


class Names(Sequence[str]):
    """A sequence of names that reads as a list of str does, in half of its memory; parts share the bytes.

    Attributes:
        blob: uint8 [B], bytes that hold the names in UTF-8.
        starts: int64 [N], where each name begins in `blob`.
        stops: int64 [N], where it ends.
    """

    def __init__(self, blob: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> None:
        """Take names as they lie in memory."""
        self.blob, self.starts, self.stops = blob, starts, stops

    @classmethod
    def of(cls, names: Iterable[str | bytes]) -> Self:
        """Store names that come one after the other; bytes are names in UTF-8."""
        blob, stops = bytearray(), array("q")
        for name in names:
            blob += name.encode(*_CODEC) if isinstance(name, str) else name
            stops.append(len(blob))
        return cls.packed(np.frombuffer(blob, np.uint8), np.frombuffer(stops, np.int64))

    @classmethod
    def packed(cls, blob: np.ndarray, stops: np.ndarray) -> Self:
        """Take names that follow each other without a gap: uint8 [B], and int64 [N], where each ends."""
        return cls(blob, np.concatenate([np.zeros(min(1, len(stops)), np.int64), stops[:-1]]), stops)

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice | np.ndarray) -> "Names": ...

    def __getitem__(self, index):  # noqa: ANN001, ANN204
        """Return one name, or those of a slice or of an index array, int [n]."""
        if isinstance(index, (slice, np.ndarray)):
            return Names(self.blob, self.starts[index], self.stops[index])
        return self.blob[self.starts[index] : self.stops[index]].tobytes().decode(*_CODEC)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # as a list

    def __repr__(self) -> str:
        return repr(list(self)) if len(self) <= 10 else f"<{len(self)} names, {self[0]!r} to {self[-1]!r}>"

    def encoded(self, first: int, last: int) -> Iterator[memoryview]:
        """Yield names `first` to `last` as they lie in memory, in UTF-8."""
        blob = memoryview(self.blob)
        places = zip(self.starts[first:last].tolist(), self.stops[first:last].tolist(), strict=True)
        return (blob[start:stop] for start, stop in places)
