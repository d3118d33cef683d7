"""The embedded dataset: windows of the natural photographs that scikit-image ships in its wheel.

Train and test windows come from different photographs. Every window is a function of its index alone, so the dataset is
the same on every machine, without a download.
"""

import importlib.util
from pathlib import Path

from vistok.data.files import PhotoFiles

PHOTOS = {
    "train": ("astronaut.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg"),
    "test": ("chelsea.png", "rocket.jpg"),
}
NUM_WINDOWS = {"train": 4096, "test": 512}


def photos(split: str) -> PhotoFiles:
    """Return the windows of a split as files: window i is of photograph i modulo their number.

    Raises:
        ValueError: the installed scikit-image lacks a photograph.
    """
    package = importlib.util.find_spec("skimage")  # found, not imported: that would take a second
    if package is None or package.origin is None:
        raise ValueError("The dataset 'photos' is shipped by scikit-image, which is not installed.")
    location = Path(package.origin).parent / "data"
    missing = [name for names in PHOTOS.values() for name in names if not (location / name).is_file()]
    if missing:
        raise ValueError(
            f"The installed scikit-image lacks {', '.join(missing)} (looked in {location}); "
            "a complete wheel has it: pip install --force-reinstall scikit-image."
        )
    names = PHOTOS[split]
    return PhotoFiles(location, [names[i % len(names)] for i in range(NUM_WINDOWS[split])])
