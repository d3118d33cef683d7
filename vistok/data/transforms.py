"""From the bytes of an image file to the uint8 square that the network sees: decoding, crops, resizes.

The crops are those of the published protocols: CelebA's 128x128 window (top 57, left 25), and ADM's centre and random
crops (Dhariwal and Nichol, arXiv:2105.05233; `image_datasets.py` of guided-diffusion). Orientation tags of their images are
ignored, as those protocols ignore them.

Files are not trusted: their size in pixels is checked before any is decoded, and only formats are read whose decoders
start no other program, as Pillow's for EPS does.
"""

import abc
import contextlib
import dataclasses
import functools
import io
import math
import os
import threading
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from vistok.data.draws import uniform
from vistok.data.naming import HAS_AVIF, HAS_HEIF, HEIF_SUFFIXES, TGA_SUFFIXES

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the original

CELEBA_SIZE = (178, 218)  # width and height of an aligned CelebA image
CELEBA_BOX = (25, 57, 25 + 128, 57 + 128)
CROP_MARGIN = 1.125  # side of the cached square over the image size; random crops move within it
ADM_MIN_CROP_FRACTION = 0.8
FORMATS = (  # those of naming.SUFFIXES, whatever a file's suffix says
    *("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "DIB", "JPEG2000", "PCX", "PSD", "QOI", "SGI", "SUN"),
    *(("AVIF",) if HAS_AVIF else ()),
)
# Key in the `info` of a decoded image of more than 8 bits, where it comes out dark or white.
LARGEST = "largest value of a pixel"
MAX_PIXELS = 178_956_970  # an image has no more; Pillow's own limit, which is a global that may be set to none

# An image of 16 bits without a pixel of a quarter of the range has 8, 10, 12 or 14 bits, as a camera's raw has.
_DARK = 2**14

# Pillow turns TIFF files by their orientation tag as it loads them, by the transposition that each of these undoes.
_UNTURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def decode(data: bytes, name: str, *, is_upright: bool = False) -> Image.Image:
    """Decode an image file of any mode to 8-bit RGB: its first picture, where it holds several.

    Transparent pixels are laid over white, 16-bit values keep their high byte, CMYK and palettes are converted.

    Args:
        data: the whole file.
        name: what an error calls it.
        is_upright: turn it as the camera was held, where the file says how: for a reader's own picture.

    Returns:
        A loaded image of mode RGB.

    Raises:
        ValueError: the file is no image of `FORMATS`, is damaged, or has more than `MAX_PIXELS` pixels.
    """
    try:
        with _without_warnings():
            image = _open(data, name)
            turned = image.getexif().get(ExifTags.Base.Orientation) if image.format == "TIFF" else None
            is_halved = _is_halved(image)
            image.load()
            if is_upright:
                return to_rgb(upright(image), is_halved)
            image = to_rgb(image, is_halved)
            return image.transpose(_UNTURN[turned]) if turned in _UNTURN else image
    except Exception as error:  # a damaged file raises whatever its format's parser meets first
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = f"it is none of {', '.join(_formats(name))}"
        raise ValueError(f"The image {name} cannot be decoded: {reason}") from error


def unusual_range(name: str, largest: int) -> str:
    """Return what a sentence says that an image has whose `info` has `LARGEST`: that of `name` is `largest`."""
    tone = "dark" if largest < 2**16 else "white"
    return (
        f"more than 8 bits a pixel, which are taken as 16, but come out {tone}: the largest value of {name} is "
        f"{largest:,}, that of 16 bits 65,535. Scale their values, or save them with 8 bits."
    )


def upright(image: Image.Image) -> Image.Image:
    """Return an image of Pillow as the camera was held; where its tags do not say how, or cannot be read, as it is."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # whatever the tags' parser meets first: the pixels are whole
        return image


def check_decodes(data: bytes, name: str) -> None:
    """Raise ValueError where `decode` would; a JPEG is decoded at an eighth of its size, which is faster."""
    try:
        with _without_warnings():
            image = _open(data, name)
            image.draft("RGB", (1, 1))
            image.load()
            to_rgb(image)
    except Exception:
        decode(data, name)  # the plain way decides, and words the error


def picture_size(data: bytes, name: str) -> tuple[int, int]:
    """Return the width and height, in pixels, of what `decode` would return, from the header alone where that says it.

    Raises:
        ValueError: as of `decode`.
    """
    try:
        with _without_warnings():
            image = _open(data, name)
    except Exception:
        return decode(data, name).size  # the plain way decides, and words the error
    return decode(data, name).size if image.format == "TIFF" else image.size  # Pillow turns TIFF files


def _formats(name: str) -> tuple[str, ...]:
    """Return the formats that a file of this name may have; of a TGA file only the name says that it is one."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in HEIF_SUFFIXES and HAS_HEIF:
        _register_heif()
        return (*FORMATS, "HEIF")
    return (*FORMATS, "TGA") if suffix in TGA_SUFFIXES else FORMATS


@functools.cache
def _register_heif() -> None:
    import pillow_heif  # an optional package

    pillow_heif.register_heif_opener()


def _open(data: bytes, name: str) -> Image.Image:
    """Return an image of which nothing but its header is read; raises ValueError where it is too large to be loaded."""
    image = Image.open(io.BytesIO(data), formats=_formats(name))
    sizes = [image.size]
    if isinstance(image, TiffImagePlugin.TiffImageFile) and TiffImagePlugin.TILEWIDTH in image.tag_v2:
        # libtiff decodes whole tiles, whatever the image has of them.
        sizes.append((image.tag_v2[TiffImagePlugin.TILEWIDTH], image.tag_v2[TiffImagePlugin.TILELENGTH]))
    for width, height in sizes:
        if width * height > MAX_PIXELS:
            raise ValueError(f"it has {width}x{height} pixels, but at most {MAX_PIXELS:,} are decoded")
    return image


_silent = contextlib.ExitStack()
_silent_lock = threading.Lock()
_num_decoding = 0


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep warnings back while any thread decodes: of files larger than half of Pillow's limit, of odd tags.

    The filters belong to all threads, so the first one that decodes changes them and the last one puts them back.
    """
    global _num_decoding
    with _silent_lock:
        if _num_decoding == 0:
            _silent.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        _num_decoding += 1
    try:
        yield
    finally:
        with _silent_lock:
            _num_decoding -= 1
            if _num_decoding == 0:
                _silent.close()


def _is_halved(image: Image.Image) -> bool:
    """Return whether Pillow will load the high byte only of 16 bits a channel: of a colour PNG or TIFF."""
    return image.mode in ("RGB", "RGBA", "RGBX", "LA") and any(";16" in str(tile[3]) for tile in image.tile)


def to_rgb(image: Image.Image, is_halved: bool = False) -> Image.Image:
    """Convert a loaded image of any mode to RGB, as `decode` does.

    Args:
        image: of Pillow.
        is_halved: whether Pillow kept only the high bytes of 16-bit colours.

    Raises:
        ValueError: its pixels are floats.
    """
    if is_halved:
        largest = 256 * max(high for _, high in image.getextrema()[:3]) + 255  # as exact as the high byte says
        rgb = to_rgb(image)
        if largest < _DARK:
            rgb.info[LARGEST] = largest
        return rgb
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):  # 16 bits a pixel; convert() would clip every value above 255
        values = np.asarray(image)
        rgb = Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
        if not _DARK <= (largest := int(values.max())) <= 65535:
            rgb.info[LARGEST] = largest
        return rgb
    if image.getbands()[-1] in ("A", "a") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


class Square(abc.ABC):
    """A deterministic way from an original to a uint8 square: the part of the preprocessing that is cached."""

    size: int  # pixels, height and width of the square; `WholePicture` alone has another meaning of it

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """One line that fixes what is computed: part of the cache's key and of a run's record."""

    @abc.abstractmethod
    def box(self, index: int, width: int, height: int) -> Box:
        """Return which part of an original of `width` x `height` pixels the square shows."""

    @abc.abstractmethod
    def render(self, index: int, image: Image.Image) -> np.ndarray:
        """Return the square, uint8 [size, size, 3], of the RGB image `image`, number `index` of its dataset."""


@dataclasses.dataclass(frozen=True)
class CenterSquare(Square):
    """ADM's centre crop: halve with a box filter while the short side is at least twice `size`, bicubic, crop."""

    size: int

    @property
    def description(self) -> str:
        return f"ADM centre crop to {self.size}x{self.size}"

    def box(self, index: int, width: int, height: int) -> Box:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side

    def short_side(self, width: int, height: int) -> int:
        """Return the pixels of the short side of what is resized of an image."""
        return min(width, height)

    def render(self, index: int, image: Image.Image) -> np.ndarray:
        return _crop_of_resized(image, self.size, self.size, None)


@dataclasses.dataclass(frozen=True)
class WholeSquare(CenterSquare):
    """A whole square image of a side that all images of its dataset have; not resampled where that is `size`.

    For another `size` it is padded with black by `padding` pixels at each side first, and resampled where that is not `size`.
    """

    size: int
    side: int
    padding: int = 0

    @property
    def description(self) -> str:
        padded = self.short_side(self.side, self.side)
        steps = [f"whole images of {self.side}x{self.side}"]
        steps += [] if padded == self.side else [f"padded to {padded}x{padded} with black"]
        return ", ".join(steps + ([] if padded == self.size else [f"ADM resize to {self.size}x{self.size}"]))

    def short_side(self, width: int, height: int) -> int:
        return self.side if self.size == self.side else self.side + 2 * self.padding

    def render(self, index: int, image: Image.Image) -> np.ndarray:
        if image.size != (self.side, self.side):
            side = f"{self.side}x{self.side}"
            raise ValueError(f"has {image.width}x{image.height} pixels, but an image of its dataset has {side}")
        border = (self.short_side(*image.size) - self.side) // 2
        return super().render(index, ImageOps.expand(image, border) if border else image)


@dataclasses.dataclass(frozen=True)
class CelebASquare(Square):
    """The 128x128 window at top 57, left 25 of the aligned 178x218 image, antialiased bilinear to `size`."""

    size: int

    @property
    def description(self) -> str:
        return f"CelebA crop 128x128 at top 57, left 25, bilinear to {self.size}x{self.size}"

    def box(self, index: int, width: int, height: int) -> Box:
        return CELEBA_BOX

    def render(self, index: int, image: Image.Image) -> np.ndarray:
        if image.size != CELEBA_SIZE:
            raise ValueError(f"has {image.width}x{image.height} pixels, but an aligned CelebA image has 178x218")
        return np.asarray(image.crop(CELEBA_BOX).resize((self.size, self.size), Image.Resampling.BILINEAR))


@dataclasses.dataclass(frozen=True)
class WholePicture(Square):
    """No square but the whole picture, not resampled: at its edges it is cut to multiples of `size` pixels."""

    size: int

    @property
    def description(self) -> str:
        return f"whole pictures, cut at the centre to multiples of {self.size} pixels"

    def box(self, index: int, width: int, height: int) -> Box:
        left, top = width % self.size // 2, height % self.size // 2
        return left, top, left + width // self.size * self.size, top + height // self.size * self.size

    def render(self, index: int, image: Image.Image) -> np.ndarray:
        return np.asarray(image.crop(self.box(index, *image.size)))


class _WindowSquare(Square):
    """The window of a photograph that `box` says, antialiased bicubic to `size`."""

    def render(self, index: int, image: Image.Image) -> np.ndarray:
        box = self.box(index, *image.size)
        return np.asarray(image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0))


@dataclasses.dataclass(frozen=True)
class PhotoSquare(_WindowSquare):
    """A square window of a large photograph, antialiased bicubic to `size`.

    Its side lies uniformly between `size` (where that fits) and the whole short side, its place uniformly over the
    photograph; both are a function of the index alone. The draws are those that augment image `index` in epoch 0 of seed 0,
    and the side is the draw that flips: in that epoch of a training with seed 0 the smaller half of the windows is mirrored
    and the larger is not. Other seeds and epochs are independent of the windows; a stream of their own would change every
    number that was measured or trained on `photos`.
    """

    size: int

    @property
    def description(self) -> str:
        return f"window drawn by index, bicubic to {self.size}x{self.size}"

    def box(self, index: int, width: int, height: int) -> Box:
        return _drawn_window(index, self.size, width, height)


@dataclasses.dataclass(frozen=True)
class SceneSquare(_WindowSquare):
    """The whole middle square of each photograph first, then windows of a third of its short side at least, by index.

    Antialiased bicubic to `size`. Image i is of photograph i modulo `number`, so the first `number` are the middle squares.
    """

    size: int
    number: int

    @property
    def description(self) -> str:
        return f"{self.number} middle squares, then windows drawn by index, bicubic to {self.size}x{self.size}"

    def box(self, index: int, width: int, height: int) -> Box:
        if index < self.number:
            return CenterSquare(self.size).box(index, width, height)
        return _drawn_window(index, max(self.size, min(width, height) // 3), width, height)


def _drawn_window(index: int, smallest: int, width: int, height: int) -> Box:
    """Return a square window drawn by index, its side at least `smallest` where that fits."""
    short = min(width, height)
    smallest = min(smallest, short)
    side_draw, top_draw, left_draw, _ = uniform(0, 0, np.array([index]))[0]
    side = smallest + int(side_draw * (short - smallest + 1))
    top, left = int(top_draw * (height - side + 1)), int(left_draw * (width - side + 1))
    return left, top, left + side, top + side


def adm_random_crop(image: Image.Image, image_size: int, draws: np.ndarray) -> np.ndarray:
    """Return ADM's random crop: a short side of `image_size` / 1.0 to / 0.8 pixels, then a window of it.

    Args:
        image: RGB.
        image_size: pixels, height and width of the result.
        draws: [3] in [0, 1): for the window's top and left and for the short side.

    Returns:
        uint8 [image_size, image_size, 3].
    """
    largest = math.ceil(image_size / ADM_MIN_CROP_FRACTION)
    short = image_size + int(draws[2] * (largest - image_size + 1))
    return _crop_of_resized(image, short, image_size, (draws[0], draws[1]))


def resized(image: Image.Image, short: int) -> Image.Image:
    """Return an image resized to a short side as ADM resizes, whole: box-filtered halvings, then one bicubic step."""
    image = _halved(image, short)
    scale = short / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def _halved(image: Image.Image, short: int) -> Image.Image:
    """Return an image halved while its short side is at least twice `short` pixels."""
    while min(image.size) >= 2 * short:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    return image


def _crop_of_resized(image: Image.Image, short: int, size: int, place: tuple[float, float] | None) -> np.ndarray:
    """Return a window of the image resized to a short side: box-filtered halvings, then one bicubic step (ADM).

    Args:
        image: RGB.
        short: pixels of the short side.
        size: pixels, height and width of the window.
        place: draws in [0, 1) for the window's top and left; None: the centre.

    Returns:
        uint8 [size, size, 3].
    """
    image = _halved(image, short)
    scale = short / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    if place is None:
        left, top = (width - size) // 2, (height - size) // 2
    else:
        top, left = int(place[0] * (height - size + 1)), int(place[1] * (width - size + 1))
    window = (left, top, left + size, top + size)
    if width * height <= MAX_PIXELS:
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC).crop(window))
    # The whole would be too large: a picture one pixel high has no more pixels than others, but its enlargement has.
    across, down = image.width / width, image.height / height
    box = (left * across, top * down, min(window[2] * across, image.width), min(window[3] * down, image.height))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
