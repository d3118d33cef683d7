"""MNIST (LeCun et al., 1998) in its original IDX files, packed or not; of its labels nothing is read."""

import struct
from pathlib import Path

from vistok.data.files import ImageFiles
from vistok.data.records import RecordFiles, Records
from vistok.data.unpacking import unpacked

NUM_IMAGES = {"train": 60_000, "test": 10_000}
SIDE, PADDING = 28, 2  # pixels; padded to 32x32 (LeCun et al., section II.B), so that factors of 4 and 8 divide it
HELP = (
    "Get train-images-idx3-ubyte.gz and t10k-images-idx3-ubyte.gz, which may stay packed, from "
    "https://ossci-datasets.s3.amazonaws.com/mnist/ (a mirror of http://yann.lecun.com/exdb/mnist), and put them into"
)

_HEADER = struct.Struct(">4s3I")  # what is in the file, and how many images, rows and columns
_MAGIC = b"\0\0\x08\x03"  # uint8 in three dimensions


def mnist(root: Path, split: str) -> ImageFiles:
    """Return the images of a split: of `train-images-idx3-ubyte` or `t10k-images-idx3-ubyte`, as `.gz` or not.

    They may lie where torchvision puts them, in `MNIST/raw/`, and have a dot before "idx3", as some copies have.

    Raises:
        ValueError: the file is missing, damaged or another one.
    """
    stem = {"train": "train-images", "test": "t10k-images"}[split]
    names = [f"{stem}{dot}idx3-ubyte{packed}" for dot in "-." for packed in ("", ".gz")]
    places = [folder / name for folder in (root, root / "raw", root / "MNIST" / "raw") for name in names]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise ValueError(f"{root} holds neither {names[0]} nor {names[1]}. {HELP} {root}.")
    expected = (_MAGIC, NUM_IMAGES[split], SIDE, SIDE)
    num_bytes = _HEADER.size + NUM_IMAGES[split] * SIDE**2
    plain = unpacked(file, num_bytes) if file.suffix == ".gz" else file
    with plain.open("rb") as opened:
        header = opened.read(_HEADER.size)
    if header != _HEADER.pack(*expected) or plain.stat().st_size != num_bytes:
        raise ValueError(
            f"{file} has {plain.stat().st_size:,} bytes{' unpacked' if plain != file else ''} and begins with "
            f"{header.hex(' ', 4)}, but the {NUM_IMAGES[split]:,} images of MNIST's {split} split have {num_bytes:,} and begin "
            f"with {_HEADER.pack(*expected).hex(' ', 4)}: it was cut off, or is another file. {HELP} {root}."
        )
    return RecordFiles(file, [Records(names[0], plain, _HEADER.size, NUM_IMAGES[split])], (1, SIDE, SIDE), 0)
