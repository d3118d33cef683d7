"""The embedded datasets: windows of photographs that packages ship in their wheels, without a download.

Every window is a function of its index alone, so a dataset is the same on every machine.

- `photos`, to train and to test on: natural photographs of scikit-image; train and test windows are of different ones.
- `scenes`, to look at: every photograph of scikit-image and matplotlib that may be shown to anyone; a test split only.
  Those of scikit-learn, which is none of the dependencies, are left out: `scenes` would not be the same everywhere.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from vistok.data.files import PhotoFiles

PHOTOS = {
    "train": ("astronaut.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg"),
    "test": ("chelsea.png", "rocket.jpg"),
}
NUM_WINDOWS = {"train": 4096, "test": 512}
# Photograph to its licence, as its package states it (the docstrings of `skimage.data`); those of which scikit-image states
# none (the motorcycle, the moon, the page) are left out. matplotlib's states none either: an official portrait of 1984.
SCENES = {
    "astronaut.png": "public domain (NASA)",
    "chelsea.png": "CC0 (Stéfan van der Walt)",
    "coffee.png": "CC0 (Rachel Michetti)",
    "rocket.jpg": "public domain (SpaceX)",
    "grace_hopper.jpg": "public domain (U.S. Navy)",
    "camera.png": "CC0 (Lav Varshney)",
    "retina.jpg": "CC0 (Mikael Häggström)",
    "coins.png": "no known restrictions (Brooklyn Museum)",
    "hubble_deep_field.jpg": "public domain (NASA)",
    "ihc.png": "no known restrictions (CMMI)",
    "brick.png": "CC0 (CC0Textures)",
    "grass.png": "CC0 (linolafett)",
    "gravel.png": "CC0 (CC0Textures)",
    "text.png": "public domain (Wikipedia)",
}
_OF_MATPLOTLIB = ("grace_hopper.jpg",)
_FOLDERS = {"scikit-image": ("skimage", "data"), "matplotlib": ("matplotlib", "mpl-data/sample_data")}
NUM_SCENE_WINDOWS = 512


def photos(split: str) -> PhotoFiles:
    """Return the windows of a split of `photos` as files: window i is of photograph i modulo their number.

    Raises:
        ValueError: the installed scikit-image lacks a photograph.
    """
    places = _shipped("photos", "scikit-image", [name for names in PHOTOS.values() for name in names])
    names = PHOTOS[split]
    return PhotoFiles(places, [names[i % len(names)] for i in range(NUM_WINDOWS[split])])


def scenes() -> PhotoFiles:
    """Return the windows of `scenes` as files: window i is of photograph i modulo their number.

    Raises:
        ValueError: the installed scikit-image or matplotlib lacks a photograph.
    """
    places = _shipped("scenes", "scikit-image", [name for name in SCENES if name not in _OF_MATPLOTLIB])
    places |= _shipped("scenes", "matplotlib", _OF_MATPLOTLIB)
    names = list(SCENES)
    return PhotoFiles(places, [names[i % len(names)] for i in range(NUM_SCENE_WINDOWS)], SCENES)


def also_trained_on(dataset: str) -> frozenset[str]:
    """Return the names of the photographs that training images of a dataset, by its name, are windows of."""
    return frozenset(PHOTOS["train"] if dataset == "photos" else ())


def _shipped(dataset: str, package: str, names: Sequence[str]) -> dict[str, Path]:
    """Return where the photographs are that a package ships."""
    module, folder = _FOLDERS[package]
    found = importlib.util.find_spec(module)  # found, not imported: that would take a second
    if found is None or found.origin is None:
        raise ValueError(f"The dataset {dataset!r} is shipped by {package}, which is not installed.")
    location = Path(found.origin).parent / folder
    missing = [name for name in names if not (location / name).is_file()]
    if missing:
        raise ValueError(
            f"The installed {package} lacks {', '.join(missing)} (looked in {location}); "
            f"a complete wheel has it: pip install --force-reinstall {package}."
        )
    return {name: location / name for name in names}
