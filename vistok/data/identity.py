"""Whether images are those of a run, and so where a configuration's run is: the data decides, not the place it lies in.

A folder has many spellings, and on a cluster every job has a copy of its own. What a run records of its images, their names,
sizes and content, is the same for all of these.
"""

import glob
from pathlib import Path
from typing import Any

from vistok.config import TrainConfig
from vistok.data.datasets import ImageDataset, called, content_of
from vistok.data.files import ImageFiles
from vistok.data.registry import open_files
from vistok.system.files import strict_json


def find_run_dir(config: TrainConfig) -> Path:
    """Return the directory of a configuration's run.

    Where `config.run_dir` holds no run, that is the directory beside it whose run has the same settings and was trained on the
    same images, wherever they lay then; where there is none, a new run goes to `config.run_dir`.
    """
    own = config.run_dir
    if config.dataset == "photos" or (own / "config.json").is_file():
        return own
    alike = glob.escape(own.name.removesuffix(config.fingerprint)) + "?" * len(config.fingerprint)
    candidates = [
        (file.parent, data)
        for file in sorted(own.parent.glob(f"{alike}/config.json"))
        if (data := _data_of_same_settings(file, config)) is not None
    ]
    if candidates and (files := _training_files(config)) is not None:
        return next((path for path, data in candidates if _are_of(files, data, config)), own)
    return own


def same_images(data: dict[str, Any] | None, config: TrainConfig) -> bool:
    """Return whether the training images of a configuration are those that a run's record speaks of.

    Args:
        data: `ImageDataset.record()` of the run's training images, or None where it has none.
        config: names the images.

    Returns:
        False also where it cannot be told, since there is no record, or the images are not there.
    """
    files = _training_files(config) if data else None
    return files is not None and _are_of(files, data, config)


def check_same_images(data: dict[str, Any], images: ImageDataset) -> None:
    """Raise ValueError where images are others than those a run was trained on so far.

    Args:
        data: `ImageDataset.record()` of the run's training images; empty where it has none.
        images: those it would go on with.
    """
    changed = [n for n in ("fingerprint", "content") if data.get(n, getattr(images, n)) != getattr(images, n)]
    if changed:
        renamed = "" if changed[0] == "fingerprint" else "their names and sizes are the same, but not what is in them; "
        raise ValueError(
            f"The images of {called(images.name)} are others than those this run was trained on so far "
            f"({renamed}{data['num_images']:,} then, {len(images):,} now; {changed[0]} {data[changed[0]]}, now "
            f"{getattr(images, changed[0])}). Restore them, or begin another run; with init_from it starts from this one's "
            "weights."
        )


def _training_files(config: TrainConfig) -> ImageFiles | None:
    """Return the files of a configuration's training images, or None where they are not there."""
    try:
        return open_files(config.dataset, "train", config.data_root, config.test_fraction)
    except (ValueError, OSError):  # whoever needs them says so; here there is only nothing to compare with
        return None


def _are_of(files: ImageFiles, data: dict[str, Any], config: TrainConfig) -> bool:
    if left_out := set(data.get("left_out", ())):
        files = files.select([number for number, name in enumerate(files.names) if name not in left_out])
    if files.fingerprint(config.dataset, "train") != data.get("fingerprint"):
        return False
    return "content" not in data or data["content"] == content_of(files, config.dataset, "train")


def _data_of_same_settings(file: Path, config: TrainConfig) -> dict[str, Any] | None:
    """Return what a run's `config.json` says of its images; None where its settings differ, or it is none of a run."""
    try:
        record = strict_json(file.read_bytes())
        same = not TrainConfig.from_dict(record["config"]).differences(config)
        data = record["provenance"]["data"]
    except (ValueError, TypeError, KeyError):
        return None
    return data if same and isinstance(data, dict) else None
