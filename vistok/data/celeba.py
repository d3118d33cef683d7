"""CelebA (Liu et al., arXiv:1411.7766) as people have it: the official release or the Kaggle mirror, zipped or not.

Only the aligned images and the partition file are read; torchvision's loader wants all annotation files with the
official checksums, which the mirror's files do not have.
"""

import re
import zipfile
from pathlib import Path

from vistok.data.files import FolderFiles, ImageFiles, ZipFiles
from vistok.data.naming import is_system_path
from vistok.system.files import shown
from vistok.system.weights import first_line

IMAGES = "img_align_celeba"
PARTITIONS = ("list_eval_partition.txt", "list_eval_partition.csv")
SPLITS = {"0": "train", "1": "val", "2": "test"}
HELP = (
    "torchvision's automatic download of CelebA often fails on a Google Drive quota, so get it by hand: "
    "img_align_celeba.zip and list_eval_partition.txt from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, or the "
    "mirror https://www.kaggle.com/datasets/jessicali9530/celeba-dataset, and put both (the zip may stay zipped) into"
)

_IMAGE = re.compile(r"[0-9]+\.jpg")
_ENTRY = re.compile(rf"(?:{IMAGES}/){{0,2}}[0-9]+\.jpg")
_MAX_ENTRY_BYTES = 2**20  # an aligned image has about 10 kB, and 116 kB not compressed
_MAX_PARTITION_BYTES = 64 * 2**20  # the official file has 3 MB
_ENCRYPTED = 1  # bit of an entry's flags


def celeba(root: Path, split: str) -> ImageFiles:
    """Return the aligned images of a split, in the order of the partition file.

    Raises:
        ValueError: something is missing, or the partition file and the images disagree.
    """
    partition_path = next((root / name for name in PARTITIONS if (root / name).is_file()), None)
    if partition_path is None:
        raise ValueError(f"{root} holds neither {PARTITIONS[0]} nor {PARTITIONS[1]}. {HELP} {root}.")
    partition = _read_partition(partition_path)
    wanted = [name for name, name_split in partition.items() if name_split == split]
    folder = next((p for p in (root / IMAGES / IMAGES, root / IMAGES) if p.is_dir()), None)
    archive = root / f"{IMAGES}.zip"
    if folder is not None:
        present = {path.name for path in folder.iterdir() if path.suffix == ".jpg" and not path.name.startswith(".")}
        _check_same(partition, present, partition_path, folder)
        files: ImageFiles = FolderFiles(folder, wanted)
    elif archive.is_file():
        entries = _read_entries(archive)
        _check_same(partition, set(entries), partition_path, archive)
        files = ZipFiles(archive, [entries[name] for name in wanted])
    else:
        raise ValueError(f"{root} holds neither {IMAGES}/ nor {archive.name}. {HELP} {root}.")
    if not wanted:
        raise ValueError(f"{partition_path} has no image of the {split} split.")
    return files


def _read_partition(path: Path) -> dict[str, str]:
    """Return the split of each image: lines "000001.jpg 0", with a comma and a header line in the mirror's file."""
    if (num_bytes := path.stat().st_size) > _MAX_PARTITION_BYTES:
        raise ValueError(
            f"{path} has {num_bytes:,} bytes, but lists images in a few of them: {PARTITIONS[0]} has 3 MB."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {error}.") from error
    partition = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.replace(",", " ").split()
        if not words or (number == 1 and words[0] == "image_id"):
            continue
        well_formed = len(words) == 2 and _IMAGE.fullmatch(words[0]) and words[1] in SPLITS  # no way out of the folder
        if not well_formed or words[0] in partition:
            raise ValueError(
                f'Line {number} of {path} is {shown(line)}, but must be a new image and 0, 1 or 2, like "000001.jpg 0".'
            )
        partition[words[0]] = SPLITS[words[1]]
    return partition


def _read_entries(archive: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the images of the zip by file name; nothing is unpacked, and no other name is trusted."""
    with archive.open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as file:
                infos = file.infolist()
        except Exception as error:  # a damaged directory raises whatever its bytes spell
            raise ValueError(f"{archive} is no zip file, or its download was cut off: {first_line(error)}.") from error
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if info.is_dir() or not info.filename.endswith(".jpg"):
            continue
        if is_system_path(info.filename.encode("utf-8", "surrogateescape")):  # macOS adds a ._000001.jpg to each file
            continue
        name = info.filename.rpartition("/")[2]
        # As it was packed counts too: what an entry says of its size unpacked need not be true.
        num_bytes = max(info.file_size, info.compress_size)
        if not _ENTRY.fullmatch(info.filename) or name in entries or num_bytes > _MAX_ENTRY_BYTES:
            raise ValueError(
                f"{archive} holds {shown(info.filename)} ({num_bytes} bytes), but images there are small and called "
                f"{IMAGES}/000001.jpg, each once."
            )
        if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(
                f"{archive} holds {shown(info.filename)} encrypted or packed in an unusual way ({info.compress_type}), but "
                "images there are stored (0) or deflated (8)."
            )
        entries[name] = info
    return entries


def _check_same(partition: dict[str, str], present: set[str], partition_path: Path, images: Path) -> None:
    missing, unlisted = sorted(partition.keys() - present), sorted(present - partition.keys())
    if missing or unlisted:
        example = f"{missing[0]} is missing" if missing else f"{unlisted[0]} is not listed"
        raise ValueError(
            f"{partition_path.name} lists {len(partition)} images and {images} holds {len(present)}: "
            f"{len(missing)} missing, {len(unlisted)} not listed; for instance {example}."
        )
