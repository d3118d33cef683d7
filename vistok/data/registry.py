"""The datasets by name, and the one way to open them."""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vistok.config import TrainConfig
from vistok.data.celeba import HELP as CELEBA_HELP
from vistok.data.celeba import celeba
from vistok.data.cifar import COPIES_HELP, cifar10, cifar10_images
from vistok.data.cifar import HELP as CIFAR10_HELP
from vistok.data.datasets import AdmImages, CachedImages, ImageDataset, UncachedImages, called
from vistok.data.files import ImageFiles
from vistok.data.folders import folder, folder_splits, imagenet, imagenet_sample
from vistok.data.mnist import HELP as MNIST_HELP
from vistok.data.mnist import PADDING, SIDE, mnist
from vistok.data.photos import SCENES, photos, scenes
from vistok.data.transforms import (
    CROP_MARGIN,
    CelebASquare,
    CenterSquare,
    PhotoSquare,
    SceneSquare,
    Square,
    WholeSquare,
)
from vistok.data.whole import WholeImages
from vistok.system.files import shown
from vistok.system.paths import PACKAGE, resolve_path
from vistok.system.values import PositiveInt, checked
from vistok.system.words import misspelt, nearest

# Name -> how to get it, the beginning of a sentence that a folder's path ends; None: nothing to get.
DATASETS: dict[str, str | None] = {
    "photos": None,
    "scenes": None,
    "celeba": CELEBA_HELP,
    "cifar10": CIFAR10_HELP,
    "cifar10-images": COPIES_HELP,
    "mnist": MNIST_HELP,
    "imagenet": (
        "Get ILSVRC2012 from https://image-net.org, or its shards from https://huggingface.co/datasets/ILSVRC/imagenet-1k "
        "(Parquet) or https://huggingface.co/datasets/timm/imagenet-1k-wds (.tar), and put train/ and val/, or the shards, into"
    ),
    "imagenet-sample": "Get it by: git clone https://github.com/EliSchwartz/imagenet-sample-images",
    "folder": "Put images, in subfolders or not, or .tar or .parquet shards of them, into",
}
_EMBEDDED = tuple(name for name, help in DATASETS.items() if help is None)
_CROPS = ("cached", "adm")
_ONE_CROP: dict[str, Callable[[int], Square]] = {  # datasets of which no crop is drawn at random
    "photos": PhotoSquare,
    "scenes": functools.partial(SceneSquare, number=len(SCENES)),
    "celeba": CelebASquare,
    "cifar10": functools.partial(WholeSquare, side=32),
    "cifar10-images": functools.partial(WholeSquare, side=32),
    "mnist": functools.partial(WholeSquare, side=SIDE, padding=PADDING),
}
_TRAIN_AND_TEST: dict[
    str, Callable[[Path, str], ImageFiles]
] = {  # datasets of these two splits: what lists their files
    "cifar10": cifar10,
    "cifar10-images": cifar10_images,
    "imagenet": imagenet,
    "imagenet-sample": imagenet_sample,
    "mnist": mnist,
}


def open_dataset(
    name: str,
    split: str,
    image_size: int,
    *,
    data_root: str | Path | None = None,
    crop: str | None = None,
    test_fraction: float | None = None,
    on_bad_image: str = "raise",
) -> ImageDataset:
    """Open one split of a dataset at one size; its pixel cache is built where there is none that fits.

    Args:
        name: one of `DATASETS`.
        split: "train" or "test"; celeba, and a folder with a `val/` (or such shards) beside its `test/`, also have "val";
            scenes have "test" only.
        image_size: pixels, height and width.
        data_root: folder of the dataset, a relative one counted from the repository; None: `data/<name>` there.
        crop: how training images of imagenet, imagenet-sample and folder are cropped: "cached", random crops of a
            cached square 1.125 times the size, or "adm", ADM's random crop, decoded anew for each sample; None:
            "cached". The test split is always ADM's centre crop.
        test_fraction: share of the images of a folder without splits of its own that is its test split; None: 0.1.
        on_bad_image: "raise" a ValueError naming a file that cannot be decoded, or "skip" and list such files.

    Returns:
        The dataset.

    Raises:
        ValueError: an argument is unknown or has no meaning for this dataset, or the files are not as they should be;
            the sentence names what is wrong and the nearest that is right.
        TypeError: a number is of another type.
    """
    image_size = checked("image_size", PositiveInt, image_size)
    _check(name, crop, test_fraction, on_bad_image)
    files, square = open_files(name, split, data_root, test_fraction), _ONE_CROP.get(name, CenterSquare)
    if split != "train" or name in _ONE_CROP:
        return CachedImages(name, split, image_size, None, square(image_size), files, on_bad_image)
    if crop == "adm":
        return AdmImages(name, split, image_size, files, on_bad_image)
    return CachedImages(
        name, split, image_size, "cached", CenterSquare(round(CROP_MARGIN * image_size)), files, on_bad_image
    )


def open_given(
    caller: Callable[..., Any],
    dataset: str | ImageDataset,
    of_dataset: dict[str, Any],
    split: str,
    tokenizer: Any,
    *,
    whole: bool = False,
) -> ImageDataset:
    """Return the images that a function is given to measure or encode: a dataset that is open, or one by its name.

    Args:
        caller: the function, for the error.
        dataset: open, or one of `DATASETS`.
        of_dataset: arguments of `open_dataset` as they were given to the function; one that is None is not given.
        split: where none is given.
        tokenizer: has `image_size`, theirs where none is given, `downsample_factor`, and `check_size`, which raises where they
            do not fit.
        whole: whether the function takes images of several sizes: crop "none" gives it whole pictures, not resampled, cut at
            their edges to multiples of `downsample_factor`.

    Raises:
        ValueError: there is no such argument, or it is given beside a dataset that is open; the function takes no whole
            pictures, or `image_size` is given for them; or as `open_dataset` says.
        TypeError: `image_size` is no whole number.
    """
    own, known = inspect.signature(caller).parameters, list(inspect.signature(open_dataset).parameters)[1:]
    for name in (name for name in of_dataset if name not in known):
        raise ValueError(
            f"{caller.__qualname__} has no option {name!r}; {nearest(name, {*own, *known} - {'of_dataset'})}"
        )
    given = {name: value for name, value in of_dataset.items() if value is not None}
    if isinstance(dataset, ImageDataset):
        for name in given:
            raise ValueError(
                f"{name} is given, but the dataset is open already: leave it out, or give the dataset's name."
            )
        _check_whole(caller, dataset.crop, whole)
        return _that_fits(dataset, tokenizer)
    if given.get("crop") == "none":
        _check_whole(caller, "none", whole)
        return _that_fits(_open_whole(dataset, tokenizer.downsample_factor, **{"split": split} | given), tokenizer)
    arguments = {"split": split, "image_size": tokenizer.image_size} | given
    size = checked("image_size", PositiveInt, arguments["image_size"])
    tokenizer.check_size(size, size)
    return open_dataset(dataset, **arguments)


def _that_fits(dataset: ImageDataset, tokenizer: Any) -> ImageDataset:
    """Return a dataset; raise ValueError where an image of it has a size that the tokenizer does not take."""
    for size in dataset.different_sizes():
        tokenizer.check_size(*size)
    return dataset


def _check_whole(caller: Callable[..., Any], crop: str | None, whole: bool) -> None:
    if crop == "none" and not whole:
        raise ValueError(
            f"crop is 'none', but {caller.__qualname__} takes images of one size; leave it None, and squares are cropped."
        )


def _open_whole(
    name: str,
    multiple: int,
    split: str,
    *,
    crop: str,
    image_size: int | None = None,
    data_root: str | Path | None = None,
    test_fraction: float | None = None,
    on_bad_image: str = "raise",
) -> ImageDataset:
    """Open one split of a dataset as whole pictures; arguments are those of `open_dataset`, `multiple` as of `WholeImages`."""
    if image_size is not None:
        raise ValueError(
            f"image_size is {image_size}, but crop is {crop!r}: pictures keep their sizes; leave one of them out."
        )
    _check(name, None, test_fraction, on_bad_image)
    if name in _ONE_CROP:
        raise ValueError(
            f"crop is {crop!r}, but {name} has one crop only; leave it None, or take a folder of whole pictures."
        )
    return WholeImages(name, split, multiple, open_files(name, split, data_root, test_fraction), on_bad_image)


def open_figures(
    dataset: str | None, data_root: str | Path | None, image_size: int, *, usual: dict[str, Any]
) -> ImageDataset:
    """Open the images of a notebook's figures, centre crops; no cache is built for the few that are shown.

    Args:
        dataset: whose test split the figures show; None: they show the images of `usual`.
        data_root: its folder; None: that of `usual` where that is the same dataset, or else `data/<dataset>`.
        image_size: pixels, height and width.
        usual: what is trained on or measured, as arguments of `open_dataset`: `name`, and any of `split` ("test"),
            `data_root`, `test_fraction` and `on_bad_image`.

    Raises:
        ValueError: as `open_dataset` says.
    """
    chosen = dict(usual) if dataset is None else {"name": dataset}
    if dataset == usual["name"]:
        chosen = usual | {"split": "test"}
    chosen |= {} if data_root is None else {"data_root": data_root}
    name, split, bad = chosen["name"], chosen.get("split", "test"), chosen.get("on_bad_image", "raise")
    if bad == "skip":  # only a cache knows which files can be decoded
        return open_dataset(**{"split": split} | chosen, image_size=image_size)
    fraction = chosen.get("test_fraction")
    image_size = checked("image_size", PositiveInt, image_size)
    _check(name, None, fraction, bad)
    files = open_files(name, split, chosen.get("data_root"), fraction)
    return UncachedImages(name, split, image_size, _ONE_CROP.get(name, CenterSquare)(image_size), files)


def open_training_images(config: TrainConfig) -> ImageDataset:
    """Return the training images of a configuration, as `open_dataset` does."""
    return open_dataset(
        config.dataset,
        "train",
        config.image_size,
        data_root=config.data_root,
        crop=config.crop,
        test_fraction=config.test_fraction,
        on_bad_image=config.on_bad_image,
    )


def with_batch_that_fits(config: TrainConfig, num_processes: int = 1) -> TrainConfig:
    """Return a configuration whose batch is not larger than a folder of one's own: as many images as can be shared evenly.

    For a batch size that nobody asked for, but a scale has. Where not even one image each can be shared, the configuration
    is returned as it is: whoever trains says what is wrong.
    """
    if config.dataset != "folder":
        return config
    images = {"data_root": config.data_root, "test_fraction": config.test_fraction}
    try:
        if config.on_bad_image == "skip":  # only a cache knows how many can be decoded
            images |= {"crop": config.crop, "on_bad_image": "skip"}
            number = len(open_dataset(config.dataset, "train", config.image_size, **images))
        else:
            number = len(open_files(config.dataset, "train", **images))
    except (ValueError, OSError):  # whoever needs the images says so
        return config
    num_parts = max(1, num_processes * config.accumulate)
    fits = min(config.batch_size, number // num_parts * num_parts) or config.batch_size
    return config if fits == config.batch_size else dataclasses.replace(config, batch_size=fits)


def open_files(name: str, split: str, data_root: str | Path | None, test_fraction: float | None) -> ImageFiles:
    """Return the files of one split of a dataset, none of them decoded; arguments and errors are those of `open_dataset`."""
    if name in _EMBEDDED:
        if data_root is not None:
            raise ValueError(f"data_root is {str(data_root)!r}, but {name} come with scikit-image; leave it None.")
        if name == "scenes" and split == "train":
            raise ValueError('scenes are to look at, not to train on: they have one split, "test". photos have both.')
        _check_split(name, split, ("train", "test") if name == "photos" else ("test",))
        return photos(split) if name == "photos" else scenes()
    root = resolve_path(f"data/{name}" if data_root is None else data_root)
    if root.is_file():
        packed = root.suffix.lower() in (".zip", ".7z", ".rar", ".gz", ".tgz")
        helps = "unpack it, and give the folder" if packed else f"give the one that it lies in, {root.parent}"
        raise ValueError(f"data_root is {root}, a file, but must be a folder; {helps}.")
    if not root.is_dir():
        what = "Your folder" if name == "folder" else f"The folder of {name}"
        relative = data_root is not None and not Path(data_root).expanduser().is_absolute()
        counted = f" (data_root is {str(data_root)!r}, counted from the repository)" if relative else ""
        meant = None if data_root is None else _meant(str(data_root), root)
        helps = f"{DATASETS[name]} {root}." if meant is None else f"Did you mean {meant}?"
        raise ValueError(f"{what}, {root}, does not exist{counted}. {helps}")
    if PACKAGE.is_relative_to(root.resolve()):
        raise ValueError(
            f"data_root is {str(data_root)!r}, the folder {root.resolve()}, which holds vistok itself: its own pictures would "
            f"be taken for {'yours' if name == 'folder' else name}. Give the folder of the images."
        )
    if name == "celeba":
        _check_split(name, split, ("train", "val", "test"))
        return celeba(root, split)
    _check_split(name, split, folder_splits(root) if name == "folder" else ("train", "test"))
    if name == "folder":
        return folder(root, split, test_fraction)
    return _TRAIN_AND_TEST[name](root, split)


def _meant(given: str, root: Path) -> Path | None:
    """Return the folder that is meant by one that does not exist: copied with quotes, or misspelt, or counted from here."""
    plain = os.path.expandvars(given.strip(" \t\n\"'").removeprefix("file://").replace("\\", "/"))
    beside = [place.name for place in root.parent.iterdir() if place.is_dir()] if root.parent.is_dir() else []
    near = misspelt(root.name, beside)
    places = [resolve_path(plain), Path.cwd() / plain] if plain else []
    places += [] if near is None else [root.parent / near]
    return next((place for place in places if place.is_dir()), None)


def _check(name: str, crop: str | None, test_fraction: float | None, on_bad_image: str) -> None:
    if not isinstance(name, str) or name not in DATASETS:
        raise ValueError(f"There is no dataset {shown(name)}; {nearest(name, DATASETS)}")
    checked("test_fraction", float | None, test_fraction)
    if crop is not None and crop not in _CROPS:
        raise ValueError(f"crop is {crop!r}; {nearest(crop, _CROPS)}")
    if crop is not None and name in _ONE_CROP:
        raise ValueError(f"crop is {crop!r}, but {name} has one crop only; leave it None.")
    if test_fraction is not None and name != "folder":
        raise ValueError(f"test_fraction is {test_fraction}, but the splits of {name} are fixed; leave it None.")
    if on_bad_image not in ("raise", "skip"):
        raise ValueError(f"on_bad_image is {on_bad_image!r}; {nearest(on_bad_image, ('raise', 'skip'))}")


def _check_split(name: str, split: str, known: tuple[str, ...]) -> None:
    if split not in known:
        raise ValueError(f"{called(name)} has no split {split!r}; {nearest(split, known)}")
