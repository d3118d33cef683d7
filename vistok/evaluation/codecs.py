"""What JPEG, WebP and AVIF make of images, and at how many bits: the curves that a tokenizer's rate is to be read beside."""

import dataclasses
import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

from vistok.images import to_float, to_unit
from vistok.metrics import PSNR, SSIM
from vistok.system.progress import progress_bar
from vistok.system.values import PositiveInt, check_known, checked

# Name to options of Pillow's writer beside the quality: of each the best compression that it has without a second pass.
CODECS: dict[str, dict[str, Any]] = {
    "JPEG": {"optimize": True},
    "WebP": {"method": 6},
    "AVIF": {"speed": 4},
}
QUALITIES = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90)


@dataclasses.dataclass(frozen=True)
class CodecPoint:
    """One codec at one quality.

    Attributes:
        codec: a key of `CODECS`.
        quality: as its writer takes it, 0 to 100.
        bits_per_pixel: of the files, headers and all; a pixel has three colours.
        psnr, ssim: means over the images, in dB and in [-1, 1].
    """

    codec: str
    quality: int
    bits_per_pixel: float
    psnr: float
    ssim: float


def measure_codec(
    images: Tensor | Sequence[Tensor],
    codec: str,
    qualities: Sequence[int] = QUALITIES,
    *,
    per_file: int = 1,
    progress: bool = True,
) -> list[CodecPoint]:
    """Write and read images by a codec at several qualities, and measure what it costs and what is left.

    Args:
        images: uint8 [N, 3, H, W]; or pictures of any sizes, each uint8 [3, H, W], which are a file each.
        codec: a key of `CODECS`; Pillow's writer decides the rest, colours at half the resolution among it.
        qualities: 0 to 100.
        per_file: images beside each other in a file, so many in a row and so many rows; those left over are left out. A file
            of 32x32 pixels is mostly header, which would say nothing about how well a codec compresses. What is measured are
            the images, cut out again.
        progress: show a bar.

    Returns:
        one point for each quality, in order.

    Raises:
        ValueError: the codec or a quality is unknown, this Pillow has not the codec, or there are fewer images than one file
            takes.
    """
    check_known("There is no codec", codec, CODECS)
    if codec != "JPEG" and not features.check(codec.lower()):
        raise ValueError(f"This Pillow was built without {codec}: install one with it, or leave {codec} out.")
    for quality in qualities:
        if not 0 <= quality <= 100:
            raise ValueError(f"quality is {quality}, but must be between 0 and 100.")
    checked("per_file", PositiveInt, per_file)
    number = len(images) // per_file**2 * per_file**2
    if not isinstance(images, Tensor) and per_file > 1:
        raise ValueError(f"per_file is {per_file}, but pictures of several sizes are a file each: leave it 1.")
    if not number:
        raise ValueError(
            f"There are {len(images)} images, but a file takes {per_file}x{per_file}: give a smaller per_file."
        )
    in_files = images[:number].split(per_file**2) if isinstance(images, Tensor) else [image[None] for image in images]
    points = []
    for quality in progress_bar(qualities, desc=codec, unit=" qualities", disable=not progress):
        through = functools.partial(_through, codec, quality, per_file)
        points.append(CodecPoint(codec, quality, *rate_and_distortion(in_files, through)))
    return points


def rate_and_distortion(
    in_files: Sequence[Tensor], through: Callable[[Tensor], tuple[int, Tensor]]
) -> tuple[float, float, float]:
    """Return bits a pixel, PSNR in dB and SSIM, means over the images, of files that are written and read again.

    Args:
        in_files: the images of each file, uint8 [n, 3, H, W].
        through: images to how many bytes their file has, and what is read from it.
    """
    size, pixels, psnr, ssim = 0, 0, PSNR(), SSIM()
    for originals in in_files:
        written, read = through(originals)
        size, pixels = size + written, pixels + originals[:, 0].numel()
        pair = [to_unit(to_float(part)) for part in (originals, read)]
        psnr.update(*pair)
        ssim.update(*pair)
    return 8 * size / pixels, float(psnr.compute()), float(ssim.compute())


def _through(codec: str, quality: int, per_file: int, images: Tensor) -> tuple[int, Tensor]:
    """Return how many bytes a file of images beside each other has, and what is read from it; uint8 [n, 3, H, W]."""
    file = io.BytesIO()
    sheet = _sheet(images, per_file).permute(1, 2, 0).numpy()
    Image.fromarray(sheet).save(file, codec, quality=quality, **CODECS[codec])
    read = np.array(Image.open(file).convert("RGB"))
    return len(file.getvalue()), _cut(torch.from_numpy(read).permute(2, 0, 1), per_file)


def _sheet(images: Tensor, side: int) -> Tensor:
    """Return side*side images beside each other, [3, side*H, side*W]."""
    _, channels, height, width = images.shape
    return (
        images.view(side, side, channels, height, width)
        .permute(2, 0, 3, 1, 4)
        .reshape(channels, side * height, side * width)
    )


def _cut(sheet: Tensor, side: int) -> Tensor:
    """Return the images of a sheet, [side*side, 3, H, W]."""
    channels, height, width = sheet.shape
    tiles = sheet.view(channels, side, height // side, side, width // side)
    return tiles.permute(1, 3, 0, 2, 4).reshape(side**2, channels, height // side, width // side)
