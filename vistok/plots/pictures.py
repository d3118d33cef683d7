"""Pictures beside their reconstructions, and what their pixels are."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL.Image import Image
from torch import Tensor

from vistok.plots.figures import DPI, SMALL, WIDTH
from vistok.plots.styles import COLOURS, legend_beside, to_pixels


def check_zoom(zoom: Sequence[float]) -> None:
    """Raise ValueError where a detail to enlarge is not three numbers, before what it is to show is computed."""
    if len(zoom) != 3:
        raise ValueError(
            f"zoom is {list(zoom)}, but must be top, left and side of the detail; [0.3, 0.3, 0.25] is usual."
        )


def indices_shown(wanted: Sequence[int], length: int) -> list[int]:
    """Return which images of a dataset a figure shows: those wanted, or as many others, spread evenly, where it is smaller.

    Args:
        wanted: indices, at least 0; not empty.
        length: images in the dataset, at least 1.

    Returns:
        indices in [0, length); fewer than wanted where there are fewer images.

    Raises:
        ValueError: an index is below 0.
    """
    if min(wanted) < 0:
        raise ValueError(f"The index of a figure's image is {min(wanted)}, but must be at least 0.")
    if max(wanted) < length:
        return list(wanted)
    number = min(len(wanted), length)
    return [place * length // number for place in range(number)]


def image_rows(
    rows: Sequence[Sequence[Image | Tensor]], titles: Sequence[Sequence[str]], boxes: Sequence[Sequence[float]] = ()
) -> Figure:
    """Draw images in rows.

    Args:
        rows: of images, PIL's or uint8 [3, H, W], of any sizes and not all equally many.
        titles: of each row, one above each of its first images.
        boxes: what is outlined in the images of the first row: left, top, right and bottom, in pixels.
    """
    columns = max(len(row) for row in rows)
    side = min(1.5, WIDTH / columns)
    size = (side * columns, (side + 0.2) * len(rows))
    figure, axes = plt.subplots(len(rows), columns, figsize=size, dpi=DPI, squeeze=False, layout="constrained")
    for axes_row, images, names in zip(axes, rows, titles, strict=True):
        for axis, image in zip(axes_row, images, strict=False):
            axis.imshow(image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else image)
        for axis, name in zip(axes_row, names, strict=False):
            axis.set_title(name, fontsize=SMALL)
    for axis, (left, top, right, bottom) in zip(axes[0], boxes, strict=False):
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ec="red", lw=1.5))
    for axis in axes.flat:
        axis.axis("off")
    return figure


def reconstructions(
    images: Tensor, reconstruction: Tensor, titles: Sequence[str] | None = None, before: Tensor | None = None
) -> Figure:
    """Draw images over their reconstructions over the error.

    Args:
        images: float [N, 3, H, W] in [-1, 1].
        reconstruction: float [N, 3, H, W], clamped to [-1, 1] as the metrics do.
        titles: one for each image.
        before: reconstructions of the same images before training, for a row of their own; None: without.
    """
    reconstruction = reconstruction.clamp(-1, 1)
    rows = {"original": images} | ({} if before is None else {"before": before}) | {"reconstruction": reconstruction}
    error = (images - reconstruction).abs().mean(1)  # [N, H, W], 0 to 2
    side = min(1.1, (WIDTH - 0.2) / len(images))
    size = (side * len(images) + 0.2, 1.05 * side * (len(rows) + 1) + 0.2)
    figure, axes = plt.subplots(len(rows) + 1, len(images), figsize=size, dpi=DPI, squeeze=False)
    for column in range(len(images)):
        for axis, shown in zip(axes[:-1, column], rows.values(), strict=True):
            axis.imshow(to_pixels(shown[column]))
        axes[-1, column].imshow(error[column].cpu().numpy(), cmap="magma", vmin=0, vmax=0.5)
        if titles:
            axes[0, column].set_title(titles[column], fontsize=SMALL)
    for axis, label in zip(axes[:, 0], (*rows, "error, 0 to 0.5"), strict=True):
        axis.set_ylabel(label, fontsize=SMALL)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.tight_layout(pad=0.3)
    return figure


def side_by_side(
    image: Tensor, reconstructions: dict[str, Tensor], zoom: tuple[float, float, float] = (0.3, 0.3, 0.25)
) -> Figure:
    """Draw an image and what several tokenizers make of it, and the same detail of each enlarged below.

    Args:
        image: float [3, H, W] in [-1, 1].
        reconstructions: name to float [3, h, w]; sizes may differ.
        zoom: top, left and side of the square detail, as fractions of the image's height, width and shorter side; it is of a
            pixel at least, and moved to lie within the image.
    """
    shown = {"original": image} | reconstructions
    inches = min(2.2, WIDTH / len(shown))  # of a picture
    size = (inches * len(shown), 2 * inches + 0.35)
    figure, axes = plt.subplots(2, len(shown), figsize=size, dpi=DPI, squeeze=False)
    for column, (name, picture) in enumerate(shown.items()):
        pixels = to_pixels(picture.clamp(-1, 1))
        sides = pixels.shape[:2]
        side = min(max(1, round(zoom[2] * min(sides))), *sides)
        top, left = (min(max(0, round(part * whole)), whole - side) for part, whole in zip(zoom, sides, strict=False))
        axes[0, column].imshow(pixels)
        axes[0, column].add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, ec="white", lw=1.5))
        axes[1, column].imshow(pixels[top : top + side, left : left + side])
        axes[0, column].set_title(textwrap.fill(name, round(13 * inches)), fontsize=SMALL, parse_math=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.tight_layout(pad=0.3)
    return figure


def pixel_values(images: Tensor) -> Figure:
    """Draw how the values of the three channels are distributed.

    Args:
        images: float [N, 3, H, W] in [-1, 1].
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 2.8), dpi=DPI, layout="constrained")
    channels = (("red", COLOURS[1], "-"), ("green", COLOURS[2], "--"), ("blue", COLOURS[0], ":"))
    for values, (name, colour, dashes) in zip(images.transpose(0, 1), channels, strict=True):
        density, edges = np.histogram(values.flatten().cpu().numpy(), bins=64, range=(-1, 1), density=True)
        axis.stairs(density, edges, label=f"{name} channel", color=colour, ls=dashes, lw=1.4)
    axis.set(xlabel="pixel value, −1 to 1", ylabel="density", xlim=(-1.02, 1.02), ylim=(0, None))
    legend_beside(axis)
    return figure
