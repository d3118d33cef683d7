"""What was measured as PNG files, for other people's programs: originals in one folder, reconstructions in another.

Both are rounded to 8 bits as rFID rounds them, so that torch-fidelity on the two folders finds our rFID.
"""

import json
import math
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from vistok.data import ImageDataset
from vistok.images import image_png, unit_to_uint8
from vistok.system.files import left_behind, make_folder, replace_file, shown, strict_json
from vistok.system.paths import resolve_path
from vistok.system.processes import of_all_processes, rank_and_number
from vistok.system.weights import state_sha256
from vistok.tokenizer import VisualTokenizer

FOLDERS, DESCRIPTION = ("originals", "reconstructions"), "images.json"
FORMAT = "vistok images 1"

_BLOCK = 4096  # bytes on the disk that a file takes more than its content, at most


class SavedImages:
    """Two folders of PNG files with the same names, and a description of what they hold.

    Attributes:
        path: the folder of both.
    """

    def __init__(
        self, path: str | Path, tokenizer: VisualTokenizer, images: ImageDataset, num_images: int, **options: int
    ) -> None:
        """Make the folders, or go on with those of an evaluation that was stopped; in all processes at once.

        Args:
            path: the folder of both; what else lies there stays.
            tokenizer: what is measured.
            images: on what.
            num_images: how many of them.
            **options: what else the reconstructions depend on.

        Raises:
            ValueError: the folders hold images of another evaluation, or lie among the images themselves.
            OSError: they cannot be written, or the images would not fit on the disk.
        """
        self.path = resolve_path(path)
        settings = json.loads(json.dumps(tokenizer.settings))
        about = {
            "format": FORMAT,
            "tokenizer": {"settings": settings, "weights_sha256": state_sha256(tokenizer.state_dict())},
            "dataset": images.record(),
            "num_images": num_images,
            **options,
        }
        rank, num_processes = rank_and_number()
        for turn in range(min(2, num_processes)):  # the main process first; another one may have a disk of its own
            reason = None
            if (rank > 0) == turn:
                try:
                    _prepare(self.path, about, images)
                except (ValueError, OSError) as error:
                    reason = error
            for found in of_all_processes(reason):
                if found is not None:
                    raise found

    def write(self, first: int, originals: Tensor, reconstructions: Tensor) -> None:
        """Write images `first` and on, float [B, 3, H, W] in [0, 1]; each file is there whole or not at all."""
        for name, batch in zip(FOLDERS, (originals, reconstructions), strict=True):
            for number, image in enumerate(unit_to_uint8(batch).cpu(), start=first):
                file = self.path / name / _name(number)
                part = file.with_name(f".{file.name}.{platform.node()}.{os.getpid()}.part")
                part.write_bytes(image_png(image))
                part.replace(file)


def _name(number: int) -> str:
    return f"{number:06d}.png"


def _prepare(path: Path, about: dict[str, Any], images: ImageDataset) -> None:
    """Make the folders and their description where they are not there; raise where they hold anything else."""
    if images.is_beside(path):
        raise ValueError(f"save_images is {path}, among the images of {images.name}, and would be taken for them.")
    description = path / DESCRIPTION
    if not _has(description, about):
        for folder in (path / name for name in FOLDERS):
            if folder.is_dir() and any(folder.iterdir()):
                raise ValueError(
                    f"{folder} holds files that are none of this tokenizer's on these images; give save_images another folder."
                )
    expected = {_name(number) for number in range(about["num_images"])}
    for folder in (path / name for name in FOLDERS):
        make_folder(folder)
        for file in folder.iterdir():
            if file.name.endswith(".part") and left_behind(file):
                file.unlink(missing_ok=True)
            elif file.name not in expected and not file.name.endswith(".part"):
                raise ValueError(f"{folder} holds {shown(file.name)}, which is none of these images; move it away.")
    pixels = images.mean_pixels(about["num_images"])
    num_bytes = 2 * about["num_images"] * (3 * pixels + math.sqrt(pixels) + _BLOCK)
    if (free := shutil.disk_usage(path).free) < num_bytes:
        raise OSError(
            f"save_images needs up to {num_bytes / 1e9:.1f} GB, but {path} has {free / 1e9:.1f} GB free; give another folder, "
            "or measure fewer with max_images."
        )
    replace_file(description, json.dumps(about, indent=2).encode())


def _has(description: Path, about: dict[str, Any]) -> bool:
    """Return whether the description of a folder is `about`; a folder with another one is refused."""
    if not description.exists():
        return False
    try:
        there = strict_json(description.read_bytes())
    except ValueError:
        there = None
    if there != json.loads(json.dumps(about)):
        raise ValueError(
            f"{description.parent} holds images of another evaluation (its {DESCRIPTION} says which); give save_images another "
            "folder."
        )
    return True
