"""A reader's own picture: from whatever is given to a picture, small enough to be kept and cropped at once."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vistok.data.photos import photos
from vistok.data.transforms import CenterSquare, WholePicture, decode, resized, to_rgb, upright
from vistok.images import from_unit, to_uint8
from vistok.system.files import readable
from vistok.system.paths import resolve_path

MAX_PIXELS = 2_000_000  # a picture that is kept has no more
SMALLEST_CROP = 16  # pixels of the picture that is kept
LONGEST = 8  # times the short side, of a picture that is seen whole: its tokens grow with its length


class Crop(NamedTuple):
    """A square of a picture, in its pixels."""

    left: int
    top: int
    side: int


class Picture:
    """A picture and what tokenizers see of it: a square, or the whole.

    Attributes:
        image: RGB, made small.
        name: what captions call it.
        size: width and height in pixels before it was made small.
        crop: the square; at first the largest in the middle.
        is_whole: whether not the square but the whole picture is seen.
    """

    def __init__(self, image: Image.Image, name: str, size: tuple[int, int] | None = None) -> None:
        self.image, self.name, self.size = image, name, size or image.size
        self.crop, self.is_whole = self.centre, False

    @property
    def centre(self) -> Crop:
        """The largest square in the middle."""
        left, top, right, _ = CenterSquare(1).box(0, *self.image.size)
        return Crop(left, top, right - left)

    def crop_to(self, left: int, top: int, side: int) -> None:
        """Choose another square; the nearest that lies within the picture."""
        width, height = self.image.size
        whole = min(width, height)
        side = min(max(round(side), min(SMALLEST_CROP, whole)), whole)
        self.crop = Crop(min(max(round(left), 0), width - side), min(max(round(top), 0), height - side), side)
        self.is_whole = False

    def seen(self, size: int, multiple: int) -> Tensor:
        """Return what a tokenizer for images of `size` pixels, and tokens of `multiple` pixels, sees, uint8 [3, H, W]."""
        return self.whole(size, multiple) if self.is_whole else self.square(size)

    def square(self, size: int) -> Tensor:
        """Return what a tokenizer for images of `size` pixels sees, uint8 [3, size, size], as an evaluation resizes."""
        left, top, side = self.crop
        whole = self.crop == self.centre
        image = self.image if whole else self.image.crop((left, top, left + side, top + side))
        return torch.from_numpy(CenterSquare(size).render(0, image).copy()).permute(2, 0, 1).contiguous()

    def whole(self, short: int, multiple: int) -> Tensor:
        """Return the whole picture, uint8 [3, H, W]: its short side resized to `short`, both sides cut to multiples.

        Args:
            short: pixels.
            multiple: pixels, at most `short`.

        Raises:
            ValueError: it is too long to be seen whole.
        """
        width, height = self.image.size
        if max(width, height) > LONGEST * min(width, height):
            raise ValueError(
                f"{self.name} has {self.size[0]} x {self.size[1]} pixels, and is seen whole where its longer side is at most "
                f"{LONGEST} times its short one; look at a square of it."
            )
        pixels = WholePicture(multiple).render(0, resized(self.image, short))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


def example_picture(short: int) -> Picture:
    """Return the photograph to begin with: one of scikit-image's that nothing here is trained on.

    Raises:
        ValueError: scikit-image is not installed, or lacks it.
    """
    files = photos("test")
    return _kept(files.image(0), f"{files.names[0]} of scikit-image", short)


def picture_of(given: Any, short: int, name: str | None = None) -> Picture:
    """Return a picture of what is given from Python.

    Args:
        given: a file; an image of Pillow; uint8 [3, H, W] or [H, W, 3] or [H, W], a tensor or an array; floats of these shapes,
            channels first in [-1, 1] as everywhere here, channels last or none in [0, 1] as in Matplotlib and scikit-image.
            A batch of one is taken as its image.
        short: pixels of the short side that are enough.
        name: what captions call it; None: as the file is called.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no picture.
    """
    if isinstance(given, str | Path):
        path = _found(given)
        called = readable(path.name)
        return _kept(decode(_read(path), called, is_upright=True), name or called, short)
    if isinstance(given, Image.Image):
        image = to_rgb(upright(given))
    elif isinstance(given, Tensor | np.ndarray):
        image = _of_array(given)
    else:
        raise ValueError(f"A picture is a file, an image of Pillow, a tensor or an array, not {type(given).__name__}.")
    return _kept(image, name or "your picture", short)


def sent_picture(data: bytes, width: int, height: int, name: str, size: tuple[int, int]) -> Picture:
    """Return a picture that the page has decoded and made small: 3 bytes a pixel, row by row.

    Raises:
        ValueError: these are not as many bytes, or too many.
    """
    if width < 1 or height < 1 or width * height > 1.01 * MAX_PIXELS or len(data) != 3 * width * height:
        raise ValueError(f"{name} did not arrive whole: {len(data):,} bytes of {width} x {height} pixels.")
    return Picture(Image.frombytes("RGB", (width, height), data), name, tuple(size))


def _found(given: str | Path) -> Path:
    """Return a file that is there: a relative one is the caller's, or else the repository's."""
    path = next((path for path in (Path(given).expanduser(), resolve_path(given)) if path.exists()), None)
    if path is None:
        raise FileNotFoundError(f"There is no picture {given}.")
    if path.is_dir():
        raise ValueError(f"{given} is a folder; a picture is one file of it.")
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"The picture {path} cannot be read: {error.strerror}.") from error


def _kept(image: Image.Image, name: str, short: int) -> Picture:
    """Halve a picture, as ADM's resize begins, while it is larger than needed: what is cropped from it whole is the same."""
    size = image.size
    while min(image.size) >= 2 * short or image.width * image.height > MAX_PIXELS:
        image = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BOX)
    return Picture(image, name, size)


def _of_array(given: Tensor | np.ndarray) -> Image.Image:
    """Return an image of a tensor or an array as `picture_of` takes them."""
    if isinstance(given, Tensor):
        array = given.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()  # NumPy has no bfloat16
    else:
        array = given
    described = f"{str(given.dtype).removeprefix('torch.')} {list(given.shape)}"
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    first = array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3)
    last = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4) and not first)
    if not (first or last) or array.size == 0 or not (_is_float(given) or array.dtype == np.uint8):
        raise ValueError(f"A picture is uint8 or float, [3, H, W] or [H, W, 3] or [H, W], not {described}.")
    if _is_float(given):
        array = _in_range(array.astype(np.float32), -1 if first else 0)
    if first:
        array = array.transpose(1, 2, 0)
    return to_rgb(Image.fromarray(np.ascontiguousarray(array.squeeze(2) if array.shape[2:] == (1,) else array)))


def _is_float(given: Tensor | np.ndarray) -> bool:
    return given.is_floating_point() if isinstance(given, Tensor) else given.dtype.kind == "f"


def _in_range(array: np.ndarray, low: int) -> np.ndarray:
    """Return floats in [low, 1] as uint8."""
    least, most = float(array.min()), float(array.max())
    if not (low - 1e-3 <= least and most <= 1 + 1e-3):
        layout = "channels first" if low else "channels last, or none"
        raise ValueError(f"Floats with {layout} are in [{low}, 1], but these reach from {least:.4g} to {most:.4g}.")
    images = torch.from_numpy(array)
    return to_uint8(images if low else from_unit(images)).numpy()
