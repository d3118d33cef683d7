"""Images that lie as plain pixels one after the other in large files, as CIFAR-10's and MNIST's do."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vistok.data.names import Names
from vistok.data.shards import ShardIndex, TarFiles, shard_at


class Records(NamedTuple):
    """Some images of one file.

    Attributes:
        name: what their names begin with; image 5 of them is "<name>:5".
        path: the file; of a packed one its unpacked copy.
        start: byte that the first record begins at.
        count: of records.
    """

    name: str
    path: Path
    start: int
    count: int


class RecordFiles(TarFiles):
    """Images of one size, a record of a label, or none, and then of planes of uint8 pixels each."""

    def __init__(self, location: Path, parts: Sequence[Records], shape: tuple[int, int, int], num_labels: int) -> None:
        """List the images.

        Args:
            location: where the files are, packed or not.
            parts: the images of each file.
            shape: channels (1 or 3), height and width of an image.
            num_labels: of the byte before each image, which must be below it; 0: there is none.
        """
        self._shape, self._num_labels = shape, num_labels
        num_bytes = math.prod(shape) + (num_labels > 0)
        names = Names.of(f"{part.name}:{row}" for part in parts for row in range(part.count))
        index = ShardIndex(
            blob=names.blob,
            stops=names.stops,
            num_bytes=np.full(len(names), num_bytes, np.int64),
            offsets=np.concatenate([part.start + num_bytes * np.arange(part.count, dtype=np.int64) for part in parts]),
            shards=np.repeat(np.arange(len(parts), dtype=np.int32), [part.count for part in parts]),
        )
        super().__init__(location, [shard_at(part.path) for part in parts], index)

    def path(self, index: int) -> Path:
        return self.location / self.names[index]

    def image(self, index: int) -> Image.Image:
        record = np.frombuffer(self.read(index), np.uint8)
        if self._num_labels and record[0] >= self._num_labels:
            raise ValueError(
                f"The image {self.path(index)} has the label {record[0]}, but there are {self._num_labels}, from 0: its file "
                "is damaged, or another one under its name"
            )
        pixels = record[len(record) - math.prod(self._shape) :].reshape(self._shape)
        channels = np.broadcast_to(pixels, (3, *self._shape[1:]))  # of one channel all three are the same
        return Image.fromarray(np.ascontiguousarray(channels.transpose(1, 2, 0)))  # [3, H, W] -> [H, W, 3]
