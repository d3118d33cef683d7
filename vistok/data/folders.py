"""Datasets that are folders of images, or of shards that hold them: ImageNet, a sample of it, and anybody's own.

Shards are .tar files (WebDataset) or .parquet files (Hugging Face). What lies in a folder decides how it is read.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vistok.data.files import FolderFiles, ImageFiles, is_folder, scan_images, suffixes_in
from vistok.data.naming import LeftOut, is_image_name, is_system_folder, split_of_file, split_of_folder, tells_split
from vistok.data.parquet import ParquetFiles
from vistok.data.shards import open_shards
from vistok.system.files import readable

DEFAULT_TEST_FRACTION = 0.1
_SUBFOLDERS = ("train", "val", "test")
_PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_OPENERS = {".tar": open_shards, ".parquet": ParquetFiles}


class _Shards(NamedTuple):
    """The shards that belong to a folder: where they lie, and their sorted names by the split that these tell."""

    place: Path
    by_split: dict[str | None, list[str]]

    def splits(self) -> list[str]:
        """Return the splits that the names tell; a name without one beside them is refused."""
        named = [name for name in _SUBFOLDERS if name in self.by_split]
        if named and None in self.by_split:
            raise ValueError(
                f"{self.place} holds {self.by_split[named[0]][0]} and {self.by_split[None][0]}: either all shards have "
                "train, val or test in their names, or none."
            )
        return named

    def open(self, names: Sequence[str]) -> ImageFiles:
        """Return the images in some of the shards."""
        by_kind = {os.path.splitext(name)[1].lower(): name for name in names}
        if len(by_kind) > 1:
            shown = " and ".join(by_kind.values())
            raise ValueError(f"{self.place} holds {shown}, but must hold .tar or .parquet files, not both.")
        return _OPENERS[next(iter(by_kind))](self.place, names)


def imagenet(root: Path, split: str) -> ImageFiles:
    """Return ILSVRC2012 images: `train/<wnid>/*.JPEG`, and for the test split `val/`, flat or sorted into classes.

    Either folder may hold shards instead; without the folder, shards with the split in their names may lie in `root` or
    `root/data`: `imagenet1k-train-0000.tar`, `validation-00000-of-00014.parquet`, `ILSVRC2012_img_train.tar`.
    """
    part, word = {"train": ("train", "train"), "test": ("val", "validation")}[split]
    if (name := _subfolders(root).get(part)) is not None:
        return _all_images(root / name)
    shards = _find_shards(root)
    if not (names := shards.by_split.get(part)):
        raise ValueError(
            f"There is no folder {root / part}, and no .tar or .parquet file with {word!r} in its name in {root}."
        )
    with os.scandir(shards.place) as entries:  # its subfolders may be another split's
        _refuse_both(shards.place, next((e.name for e in entries if is_image_name(os.fsencode(e.name))), None), names)
    return _checked(shards.open(names), root, split)


def imagenet_sample(root: Path, split: str) -> ImageFiles:
    """Return one part of a flat folder: files 0, 10, 20, ... in sorted order are the test split."""
    files = _all_images(root)
    is_test = np.arange(len(files)) % 10 == 0
    return _checked(files.select(np.flatnonzero(is_test == (split == "test"))), root, split)


def folder_splits(root: Path) -> tuple[str, ...]:
    """Return the splits of a folder: those of its subfolders or shards, or train and test where a fraction divides it."""
    present = list(_subfolders(root)) or _find_shards(root).splits()
    return ("train", "val", "test") if set(present) == set(_SUBFOLDERS) else ("train", "test")


def folder(root: Path, split: str, test_fraction: float | None) -> ImageFiles:
    """Return one part of a folder of images, nested or flat, or of shards.

    Subfolders `train/` and `test/` (or `val/`, where there is no `test/`) are the splits, in any case and under their usual
    other names (`training`, `validation`, `val2017`), or else shards with these words in their names. Without them the test
    split is `test_fraction` of the images, evenly spread over their sorted order.

    Raises:
        ValueError: a split has no image, there are splits and a fraction, a `test/` has no `train/` beside it, or what lies
            there is split in another way.
    """
    if present := _subfolders(root):
        part = _part(root, split, test_fraction, list(present), "subfolders", [f"{name}/" for name in present.values()])
        _warn_of_others(root, present)
        return _all_images(root / present[part])
    shards = _find_shards(root)
    named = shards.splits()
    if len(named) < 2:
        return _by_fraction(root, split, DEFAULT_TEST_FRACTION if test_fraction is None else test_fraction, shards)
    names = shards.by_split[_part(root, split, test_fraction, named, "shards", [shards.by_split[n][0] for n in named])]
    _refuse_both(root, _first_image(root), names)
    return _checked(shards.open(names), root, split)


def _part(
    root: Path, split: str, test_fraction: float | None, present: list[str], kind: str, examples: list[str]
) -> str:
    """Return which of the splits that are `present` is meant by `split`."""
    if "train" not in present or len(present) == 1:
        raise ValueError(
            f"{root} has {' and '.join(examples)} only, but a folder split by its {kind} has train and test (or val)."
            + (f" {_advice(root, examples)}" if kind == "subfolders" else "")
        )
    if test_fraction is not None:
        raise ValueError(
            f"test_fraction is {test_fraction}, but {root} is split by its {kind} {', '.join(present)}; leave it None."
        )
    return "val" if split == "test" and "test" not in present else split


def _by_fraction(root: Path, split: str, test_fraction: float, shards: _Shards) -> ImageFiles:
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}, but must be between 0 and 1; 0.1 is usual.")
    files = _all_images(root, shards)
    places = np.arange(len(files))
    num_test = min(max(1, round(len(files) * test_fraction)), max(1, len(files) - 1))
    # File i is a test image where i * num_test / num_images passes a whole number: num_test of them, evenly spread.
    is_test = (places + 1) * num_test // len(files) > places * num_test // len(files)
    if split == "train" and len(files) == 1:
        raise ValueError(
            f"{readable(str(root))} holds 1 image, which is the one to test on; at least 2 are needed to train and to test."
        )
    return _checked(files.select(np.flatnonzero(is_test == (split == "test"))), root, split)


def _advice(root: Path, examples: list[str]) -> str:
    """Return what helps where the subfolders `examples` of a folder are splits, but not all that there must be."""
    unclear = [f"{name}/" for name in _folder_names(root) if tells_split(name) and f"{name}/" not in examples]
    if unclear:
        return f"Call {readable(unclear[0])} train, val or test, if it is that."
    whole = root / examples[0]
    return f"To divide it, give {whole} itself; if it is a class, put all classes into one folder of {root}."


def _folder_names(root: Path) -> list[str]:
    """Return the names of the subfolders that may hold images, sorted."""
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if is_folder(e) and not is_system_folder(os.fsencode(e.name)))


def _subfolders(root: Path) -> dict[str, str]:
    """Return the subfolders that are splits: the name of each by its split; two of one split are refused."""
    found: dict[str, str] = {}
    for name in _folder_names(root):
        if (split := split_of_folder(name)) is None:
            continue
        if split in found:
            raise ValueError(
                f"{root} holds {readable(found[split])}/ and {readable(name)}/, which both name the {split} split; merge "
                "them, or move one away."
            )
        found[split] = name
    for name in found.values():
        if "train" in found and name != found["train"] and (root / name).samefile(root / found["train"]):
            raise ValueError(
                f"{root} holds {readable(name)}/ and {readable(found['train'])}/, which are links to one folder, so that test "
                "images would be trained on."
            )
    return {split: found[split] for split in _SUBFOLDERS if split in found}


def _warn_of_others(root: Path, splits: dict[str, str]) -> None:
    """Say of images that lie beside the folders of the splits that they are left out."""
    left_out = LeftOut()
    for name in _folder_names(root):
        if name not in splits.values() and (count := sum(len(found.names) for found in scan_images(root / name))):
            left_out.add("in folders that are no split", os.fsencode(f"{name}/"), count)
    with os.scandir(root) as entries:
        beside = sorted(entry.name for entry in entries if is_image_name(os.fsencode(entry.name)))
    if beside:
        left_out.add("beside the folders of the splits", os.fsencode(beside[0]), len(beside))
    left_out.warn(root)


def _all_images(folder_path: Path, shards: _Shards | None = None) -> ImageFiles:
    """Return every image of a folder, or every one in its shards."""
    if not folder_path.is_dir():
        raise ValueError(f"There is no folder {folder_path}.")
    shards = shards or _find_shards(folder_path)
    if not shards.by_split:
        return _checked(FolderFiles.scan(folder_path), folder_path)
    names = sorted(name for names in shards.by_split.values() for name in names)
    _refuse_both(folder_path, _first_image(folder_path), names)
    return _checked(shards.open(names), folder_path)


def _find_shards(root: Path) -> _Shards:
    """Return the shards of a folder, in it or in its `data/`, which is where the Hugging Face Hub has them."""
    for place in (root, root / "data"):
        by_split: dict[str | None, list[str]] = {}
        if place.is_dir():
            with os.scandir(place) as entries:
                found = [entry.name for entry in entries if entry.name.lower().endswith(tuple(_OPENERS))]
            # img2dataset writes a table of what a shard holds beside it, with no image: 00000.tar and 00000.parquet.
            tables = {f"{os.path.splitext(name)[0]}.parquet" for name in found if name.lower().endswith(".tar")}
            found = [name for name in found if name not in tables and not name.startswith(".")]
            for name in sorted(name for name in found if (place / name).is_file()):
                by_split.setdefault(split_of_file(name), []).append(name)
        if by_split:
            return _Shards(place, by_split)
    return _Shards(root, {})


def _first_image(folder_path: Path) -> str | None:
    return next((os.fsdecode(found.names[0]) for found in scan_images(folder_path)), None)


def _refuse_both(folder_path: Path, image: str | None, shards: Sequence[str]) -> None:
    """Raise ValueError where a folder holds an image beside shards: one may be a copy of the other."""
    if image is not None:
        raise ValueError(
            f"{folder_path} holds images ({readable(image)}) and shards ({shards[0]}), but must hold one of them; move the "
            "other away."
        )


def _checked(files: ImageFiles, folder_path: Path, split: str | None = None) -> ImageFiles:
    if not len(files):
        most = dict([*suffixes_in(folder_path).items()][:8])
        held = ", ".join(f"{n:,} {suffix or 'without a suffix'}" for suffix, n in most.items())
        packed = [suffix for suffix in most if suffix in _PACKED]
        helps = f"; unpack {' and '.join(packed)} first" if packed else _shards_help(most, folder_path)
        but = "" if split or not held else f", but {held}{helps}"
        raise ValueError(
            f"{readable(str(folder_path))} holds no images" + (f" for the {split} split." if split else f"{but}.")
        )
    return files


def _shards_help(suffixes: Iterable[str], folder_path: Path) -> str:
    """Return what helps where shards lie deeper in a folder than they are looked for."""
    found = [suffix for suffix in suffixes if suffix in _OPENERS and not _find_shards(folder_path).by_split]
    return f"; {found[0]} shards must lie in the folder itself, or in its data/" if found else ""
