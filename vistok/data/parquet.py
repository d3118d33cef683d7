"""Images in Parquet files as the Hugging Face Hub has them: a column `image` with the bytes and the path of each file.

The `datasets` library copies the column once into Arrow files beside the pixel caches, which are mapped into memory: row i is
as quick to reach as file i of a folder. Only bytes are taken from it; vistok decodes them, and no path in a row is opened.
"""

import glob
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from vistok.data.cache import cache_folder, make_cache_folder
from vistok.data.files import ImageFiles
from vistok.data.names import Names
from vistok.data.naming import IN_SYSTEM_FOLDERS, MASKS, LeftOut, check_one_pool, is_system_path, masks_in
from vistok.data.shards import Shard, shard_at, shards_key
from vistok.system.files import shown
from vistok.system.weights import first_line

_COLUMN = "image"
_INSTALL = "pip install 'vistok[parquet]'"


class ParquetFiles(ImageFiles):
    """Images in the rows of Parquet files, named by the paths in them, or by file and row where they have none."""

    _per_file = (*ImageFiles._per_file, "_rows")
    _handle = "_column"

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        """Open the files called `names` in `folder`; they are copied into the cache where no copy fits.

        Raises:
            ValueError: `datasets` is not installed, a file is damaged or has no such column, or a row no bytes.
            OSError: the copy cannot be written, or does not fit on the disk.
        """
        self.location = folder
        rows = {name: count for name in names if (count := _num_rows(folder / name))}  # datasets fails on an empty file
        if not rows:
            raise ValueError(f"{folder} holds no images: its Parquet files have no rows.")
        counts, shards = list(rows.values()), [shard_at(folder / name) for name in rows]
        self._table = _copied(shards)
        self._open()
        self._rows = np.arange(sum(counts))
        self.num_bytes = self._sizes()
        self.stamps = np.repeat(np.array([shard.stamp for shard in shards], np.int64), counts)
        self.names = Names.of(self._names((name, row) for name, count in rows.items() for row in range(count)))
        self._leave_out()

    def _leave_out(self) -> None:
        """Leave out rows whose paths are those of hidden files, of folders of the system or of masks, and say so."""
        left_out, folders, dropped = LeftOut(), set(), []
        paths = [bytes(name) for name in self.names.encoded(0, len(self.names))]
        masks = masks_in(paths)
        for number, path in enumerate(paths):
            if is_system_path(path) or path in masks:
                left_out.add(MASKS if path in masks else IN_SYSTEM_FOLDERS, path)
                dropped.append(number)
            else:
                folders.add(path.rpartition(b"/")[0])
        check_one_pool(folders, self.location)
        left_out.warn(self.location)
        if dropped:
            self.__dict__.update(self.select(np.delete(np.arange(len(self)), dropped)).__dict__)

    def _open(self) -> None:
        self._column = self._table.data.column(_COLUMN)  # pickled, it would travel as its whole content

    def read(self, index: int) -> bytes:
        self._check_size(index, int(self.num_bytes[index]))
        return self._column[int(self._rows[index])]["bytes"].as_py()

    def _sizes(self) -> np.ndarray:
        import pyarrow.compute

        sizes, first = [np.zeros(0, np.int64)], 0
        for images in self._column.chunks:
            lengths = pyarrow.compute.binary_length(_field(images, "bytes"))
            if lengths.null_count:
                row = first + int(np.argmax(lengths.is_null().to_numpy(zero_copy_only=False)))
                path = (self._column[row].as_py() or {}).get("path")
                raise ValueError(
                    f"Row {row} of the Parquet files in {self.location} has no bytes, only the path {shown(path)}, and no path "
                    "is opened; write the files with embedded images."
                )
            sizes.append(lengths.to_numpy().astype(np.int64))
            first += len(images)
        return np.concatenate(sizes)

    def _names(self, rows: Iterator[tuple[str, int]]) -> Iterator[str]:
        for images in self._column.chunks:
            paths = _field(images, "path")
            for path in [None] * len(images) if paths is None else paths.to_pylist():
                file, row = next(rows)
                yield path if path and isinstance(path, str) else f"{file}:{row}"


def _field(images: Any, name: str) -> Any:
    """Return one field of the images, a `pyarrow.StructArray`, null where the image is; None: they have no such field."""
    number = images.type.get_field_index(name)
    return None if number < 0 else images.flatten()[number]


def _num_rows(path: Path) -> int:
    """Return how many rows a Parquet file has, from its last bytes, which also say whether it has images."""
    try:
        import datasets  # noqa: F401  (of an optional extra; pyarrow comes with it)
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(f"Reading {path} needs the package datasets, which is missing: {_INSTALL}.") from error
    try:
        metadata = pyarrow.parquet.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
    except (pyarrow.ArrowException, OSError) as error:  # OSError: also what a damaged description is to Arrow
        raise ValueError(
            f"The shard {path} is no Parquet file, is damaged or was cut off: {first_line(error)}."
        ) from error
    if _COLUMN not in schema.names:
        raise ValueError(f"{path} has no column {_COLUMN!r}, but {shown(schema.names)}; rename that of the images.")
    kind = schema.field(_COLUMN).type
    if not pyarrow.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise ValueError(
            f"The column {_COLUMN!r} of {path} is {shown(str(kind))}, but must have the fields bytes and path."
        )
    return metadata.num_rows


def _copied(shards: Sequence[Shard]) -> Any:  # a datasets.Dataset
    """Return the rows as mapped Arrow files, copied from Parquet where no copy fits; one copy for each place."""
    import datasets

    place = cache_folder() / f"parquet-{zlib.crc32(os.fsencode(os.path.realpath(shards[0].path))):08x}"
    copy = place / shards_key(shards)[:16]
    make_cache_folder()
    with filelock.FileLock(place.with_suffix(".lock")):  # one process copies, the others wait for it
        if not copy.is_dir():
            shutil.rmtree(place, ignore_errors=True)  # a copy of other files, or of these before they changed
            num_bytes, free = sum(shard.num_bytes for shard in shards), shutil.disk_usage(cache_folder()).free
            if free < num_bytes:
                raise OSError(
                    f"Reading Parquet at random needs a copy of {num_bytes / 1e9:.1f} GB, but {cache_folder()} has "
                    f"{free / 1e9:.1f} GB free; set VISTOK_CACHE to a larger disk."
                )
        folder = os.path.dirname(shards[0].path)
        paths = [glob.escape(os.path.abspath(shard.path)) for shard in shards]  # they are taken as patterns
        try:
            return datasets.Dataset.from_parquet(paths, cache_dir=str(copy), columns=[_COLUMN])
        except datasets.exceptions.DatasetGenerationError as error:
            raise ValueError(
                f"The shards {os.path.basename(shards[0].path)} to {os.path.basename(shards[-1].path)} in {folder} "
                f"cannot be read, one of them is damaged: {first_line(error.__cause__ or error)}."
            ) from error
