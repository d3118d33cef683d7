"""Datasets that are folders of images: ImageNet, a sample of it, and anybody's own."""

from pathlib import Path

from vistok.data.files import FolderFiles, list_images

DEFAULT_TEST_FRACTION = 0.1
_SUBFOLDERS = ("train", "val", "test")


def imagenet(root: Path, split: str) -> FolderFiles:
    """Return ILSVRC2012 images: `train/<wnid>/*.JPEG`, and for the test split `val/`, flat or sorted into classes."""
    return _all_images(root / {"train": "train", "test": "val"}[split])


def imagenet_sample(root: Path, split: str) -> FolderFiles:
    """Return one part of a flat folder: files 0, 10, 20, ... in sorted order are the test split."""
    files = _all_images(root)
    return _checked(files.select([i for i in range(len(files)) if (i % 10 == 0) == (split == "test")]), root, split)


def folder_splits(root: Path) -> tuple[str, ...]:
    """Return the splits of a folder: those of its subfolders, or train and test where a fraction divides it."""
    present = [name for name in _SUBFOLDERS if (root / name).is_dir()]
    return ("train", "val", "test") if present == list(_SUBFOLDERS) else ("train", "test")


def folder(root: Path, split: str, test_fraction: float | None) -> FolderFiles:
    """Return one part of a folder of images, nested or flat.

    Subfolders `train/` and `test/` (or `val/`, where there is no `test/`) are the splits. Without them the test split
    is `test_fraction` of the files, evenly spread over their sorted order.

    Raises:
        ValueError: a split has no image, there are subfolders and a fraction, or a `test/` has no `train/` beside it.
    """
    present = [name for name in _SUBFOLDERS if (root / name).is_dir()]
    if not present:
        return _by_fraction(root, split, DEFAULT_TEST_FRACTION if test_fraction is None else test_fraction)
    if "train" not in present or len(present) == 1:
        raise ValueError(
            f"{root} has {' and '.join(f'{name}/' for name in present)} only, but a folder split by subfolders has "
            "train/ and test/ (or val/)."
        )
    if test_fraction is not None:
        raise ValueError(
            f"test_fraction is {test_fraction}, but {root} is split by its subfolders {', '.join(present)}; "
            "leave it None."
        )
    return _all_images(root / ("val" if split == "test" and "test" not in present else split))


def _by_fraction(root: Path, split: str, test_fraction: float) -> FolderFiles:
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}, but must be between 0 and 1; 0.1 is usual.")
    files = _all_images(root)
    num_images = len(files)
    num_test = max(1, round(num_images * test_fraction))
    # File i is a test image where i * num_test / num_images passes a whole number: num_test of them, evenly spread.
    is_test = [(i + 1) * num_test // num_images > i * num_test // num_images for i in range(num_images)]
    return _checked(files.select([i for i in range(num_images) if is_test[i] == (split == "test")]), root, split)


def _all_images(folder_path: Path) -> FolderFiles:
    if not folder_path.is_dir():
        raise ValueError(f"There is no folder {folder_path}.")
    return _checked(FolderFiles(folder_path, list_images(folder_path)), folder_path)


def _checked(files: FolderFiles, folder_path: Path, split: str | None = None) -> FolderFiles:
    if not len(files):
        raise ValueError(f"{folder_path} holds no images" + (f" for the {split} split." if split else "."))
    return files
