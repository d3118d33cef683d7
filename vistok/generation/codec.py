"""A picture as a file of the tokens of its squares, as short as they are likely under a generator.

The picture is cut into squares of the size that the generator was trained on, from the top left, those at the right and the
bottom filled up with the last column and row; each is encoded alone, so that seams may show. What comes back is what the
tokenizer makes of its tokens: the file keeps these exactly, and not the picture. A file of ours, `.vtk`, numbers little-endian:

    4 bytes     b"VTK1"
    6 bytes     uint16 height and width of the picture; uint16 class, 65535: none
    8 bytes     the first 4 of the SHA-256 of the generator's weights, and of the tokenizer's
    4 bytes     CRC-32 of the tokens
    4 bytes     CRC-32 of all other bytes of the file
    the rest    the tokens of all squares, row by row, as `vistok.generation.coding` writes them

A file that was damaged, or is another generator's or tokenizer's, is known by these numbers; so is one whose tokens come out
otherwise here than where it was written, which another processor's rounding may do, though hardly ever (`coding`).
"""

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vistok.generation.coding import checksum, decode_tokens, encode_tokens
from vistok.generation.generator import Generator, load_with_tokenizer
from vistok.generation.rate import check_orders
from vistok.images import to_float, to_uint8
from vistok.system.devices import computing
from vistok.system.weights import state_sha256
from vistok.tokenizer import VisualTokenizer

MAGIC, NO_CLASS, MOST_PIXELS = b"VTK1", 2**16 - 1, 2**28
AT_ONCE = 64  # squares that the tokenizer encodes or decodes together
_HEADER = struct.Struct("<4sHHH4s4sI")
_CHECKSUM = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CHECKSUM.size


class Codec(NamedTuple):
    """A generator and the tokenizer whose tokens it knows: together they write and read files.

    Attributes:
        generator: an autoregressive one.
        tokenizer: the one whose tokens it was trained on.
    """

    generator: Generator
    tokenizer: VisualTokenizer

    @classmethod
    def load(cls, generator: str | Path, tokenizer: str | Path | None = None) -> "Codec":
        """Load both.

        Args:
            generator: a run that trained one, or a directory written by `Generator.save`.
            tokenizer: a run or anything else that `load_pretrained` takes; None: the run of the generator keeps it.

        Raises:
            FileNotFoundError: one of them is not there.
            ValueError: the generator is masked, or the tokenizer is another than its.
        """
        codec = cls(*load_with_tokenizer(generator, tokenizer))
        check_orders(codec.generator)
        return codec

    @property
    def marks(self) -> tuple[bytes, bytes]:
        """What the header says of the generator and of the tokenizer."""
        return tuple(bytes.fromhex(state_sha256(of.state_dict()))[:4] for of in self)

    def encode(self, picture: Tensor, label: int | None = None) -> bytes:
        """Return a picture as the bytes of a file.

        Args:
            picture: uint8 [3, H, W], of at most 65,535 pixels a side, and 2^28 in all.
            label: its class, in [0, C); None: none.

        Raises:
            ValueError: it is no such picture, or there is no such class.
        """
        if not isinstance(picture, Tensor):
            raise ValueError(f"A picture is a tensor, uint8 [3, H, W], not {type(picture).__name__}.")
        if picture.ndim != 3 or len(picture) != 3 or picture.dtype != torch.uint8 or not picture.numel():
            raise ValueError(f"A picture is uint8 [3, H, W], not {picture.dtype} {list(picture.shape)}.")
        height, width = picture.shape[1:]
        if max(height, width) >= 2**16 or height * width > MOST_PIXELS:
            raise ValueError(
                f"The picture has {width}x{height} pixels, but must have at most 65535 a side, and {MOST_PIXELS:,} in all."
            )
        places = self._places(picture)
        labels = self.generator.label_numbers(label, len(places))
        data = encode_tokens(self.generator, places, labels)
        number = NO_CLASS if label is None else label
        header = _HEADER.pack(MAGIC, height, width, number, *self.marks, checksum(places))
        return header + _CHECKSUM.pack(zlib.crc32(header + data)) + data

    def decode(self, file: bytes, name: str = "The file") -> Tensor:
        """Return the picture, uint8 [3, H, W], of the bytes of a file.

        Args:
            file: what `encode` returned.
            name: what an error calls it.

        Raises:
            ValueError: the bytes are no such file, damaged, of another generator or tokenizer, or of other tokens here.
        """
        return self.picture(*self.tokens(file, name))

    def picture(self, places: Tensor, size: tuple[int, int]) -> Tensor:
        """Return what the tokenizer makes of the tokens of squares, uint8 [3, H, W]; arguments as `tokens` returns them."""
        indices = map(self.generator.layout.to_indices, places.split(AT_ONCE))
        squares = torch.cat([to_uint8(self.tokenizer.decode(some)) for some in indices])  # [n, 3, s, s]
        return _joined(squares, *size)

    def tokens(self, file: bytes, name: str = "The file") -> tuple[Tensor, tuple[int, int]]:
        """Return the tokens of a file, int64 [squares, S, L], and height and width of its picture; arguments as of `decode`."""
        height, width, number, expected, data = self._checked(file, name)
        side = self.generator.image_size
        batch = -(-height // side) * -(-width // side)
        labels = self.generator.label_numbers(None if number == NO_CLASS else number, batch)
        places = decode_tokens(self.generator, data, batch, labels)
        if places is None or checksum(places) != expected:
            raise ValueError(
                f"{name} is whole and this generator's, but its tokens come out otherwise here than where it was written: "
                "another processor or version of PyTorch rounds otherwise. Read it where it was written."
            )
        return places, (height, width)

    def _checked(self, file: bytes, name: str) -> tuple[int, int, int, int, bytes]:
        """Return what the header says, and the tokens' bytes; ValueError where it is no file of these two."""
        if not file.startswith(MAGIC):
            raise ValueError(
                f"{name} is no file that `python -m vistok.compress` wrote: it does not begin with {MAGIC}."
            )
        header, data = file[: _HEADER.size], file[HEADER_BYTES:]
        written = file[_HEADER.size : HEADER_BYTES]
        if len(written) < _CHECKSUM.size or _CHECKSUM.unpack(written)[0] != zlib.crc32(header + data):
            raise ValueError(f"{name} is damaged: its bytes have another checksum than when it was written.")
        _, height, width, number, *marks, expected = _HEADER.unpack(header)
        for what, there, here in zip(("generator", "tokenizer"), marks, self.marks, strict=True):
            if there != here:
                raise ValueError(
                    f"{name} was written with another {what} (its weights' SHA-256 begins with {there.hex()}, here with "
                    f"{here.hex()}): read it with that one."
                )
        if not 0 < height * width <= MOST_PIXELS or (number != NO_CLASS and number >= len(self.generator.classes)):
            raise ValueError(
                f"{name} would be a picture of {width}x{height} pixels and of class {number}, which cannot be."
            )
        return height, width, number, expected, data

    def _places(self, picture: Tensor) -> Tensor:
        """Return the tokens, int64 [squares, S, L], of a picture, uint8 [3, H, W]."""
        squares = to_float(_squares(picture, self.generator.image_size))  # [n, 3, s, s]
        with computing(squares.device, exact=True):
            parts = [self.tokenizer.encode_levels(some) for some in squares.split(AT_ONCE)]
        return torch.cat([self.generator.layout.from_levels(levels) for levels in parts])


def _squares(picture: Tensor, side: int) -> Tensor:
    """Return the squares of a picture, [3, H, W], row by row, [n, 3, side, side]; the last column and row are repeated."""
    height, width = picture.shape[1:]
    more = (0, -width % side, 0, -height % side)
    filled = F.pad(picture[None].float(), more, mode="replicate")[0].to(picture.dtype)
    return filled.unfold(1, side, side).unfold(2, side, side).permute(1, 2, 0, 3, 4).flatten(0, 1)


def _joined(squares: Tensor, height: int, width: int) -> Tensor:
    """Return the picture, uint8 [3, H, W], of its squares, uint8 [n, 3, side, side]."""
    side = squares.shape[3]
    rows = squares.unflatten(0, (-(-height // side), -1))  # [h, w, 3, side, side]
    return rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)[:, :height, :width]
