"""`ReconstructionViewer`: images beside what their tokens decode to, the worst first, and a lens on both."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from vistok.plots import DPI
from vistok.system.progress import progress_bar
from vistok.tokens.encoded import EncodedImages
from vistok.widgets.view import Refusal, View, image_png, script, smaller, strip_png

# The colours of error maps end at this part of a range 0 to 1: 0.5 of [-1, 1], as `plots.reconstructions` has it.
ERROR_SCALE = 0.25
ORDERS = ("worst first", "best first", "by number")
THUMBNAIL = 48  # pixels of the longer side at most
FIGURE_THUMBNAILS = 8
IMAGES_A_STEP = 4  # images between two states of the bar while they are decoded
PATIENCE_SECONDS = 2  # a reader waits so long without a bar


class ReconstructionViewer(View):
    """Look at originals, reconstructions and errors, enlarged; a lens shows the same place of all three.

    Attributes:
        image: number of the image that is shown; may be set.
        order: of the thumbnails, one of `ORDERS`; may be set.
        lens: where the lens is, row and column of its centre in pixels; may be set.
        zoom: how much smaller the lens's square is than the image; may be set.
        names: names of the images.
    """

    _esm = script("errors", "reconstructions")
    image = traitlets.Int(0).tag(sync=True)
    order = traitlets.Enum(ORDERS, ORDERS[0]).tag(sync=True)
    lens = traitlets.List(traitlets.Float(), [0.0, 0.0], minlen=2, maxlen=2).tag(sync=True)
    zoom = traitlets.Int(4, min=1).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    psnr = traitlets.Bytes().tag(sync=True)  # float32 of each image in dB; infinite where nothing differs
    thumbnails = traitlets.Bytes().tag(sync=True)  # PNG of all images in a row, made small
    original = traitlets.Bytes().tag(sync=True)  # PNG, as is the next one, of the image that is shown
    reconstruction = traitlets.Bytes().tag(sync=True)
    error_scale = traitlets.Float(ERROR_SCALE).tag(sync=True)

    def __init__(self, encoded: EncodedImages | Refusal, *, max_images: int = 64) -> None:
        """Decode images and show the worst.

        Args:
            encoded: the images, or why there are none.
            max_images: the first so many only; all of them are decoded now, for their PSNR.
        """
        super().__init__()
        self._encoded = self._opened(encoded)
        if self._encoded is None:
            return
        if max_images < 1:
            self._encoded = None
            self.message = f"max_images is {max_images}, but must be at least 1."
            return
        rows = range(min(len(encoded), max_images))
        self._psnr = psnr_of(encoded, rows)
        self._worst_first = self._psnr.argsort(kind="stable")
        self.names = encoded.image_names[: len(rows)]
        images = encoded.pixels(rows)
        self.lens = [side / 2 for side in images.shape[2:]]
        self.psnr = self._psnr.astype("<f4").tobytes()
        self.thumbnails = strip_png(smaller(images, THUMBNAIL))
        self.image = int(self._worst_first[0])
        self._show()

    @traitlets.validate("image")
    def _known(self, proposal: Any) -> int:
        return self._known_number(proposal, len(self.names))

    @traitlets.validate("lens")
    def _somewhere(self, proposal: Any) -> list[float]:
        if not np.isfinite(proposal.value).all():
            row, column = proposal.value
            wanted = "two numbers: row and column of its centre in pixels"
            self.message = f"lens is [{row:g}, {column:g}], but must be {wanted}."
            return self.lens
        if self._encoded is not None:
            self.message = ""
        return proposal.value

    @traitlets.observe("image")
    def _show(self, change: Any = None) -> None:
        if self._encoded is None:
            return
        with self._turn, self.hold_sync():
            original, reconstruction = self._pictures()
            self.original, self.reconstruction = image_png(original), image_png(reconstruction)
            self.description = self._describe(error_map(original, reconstruction))

    def _pictures(self) -> tuple[Tensor, Tensor]:
        return self._encoded.pixels([self.image])[0], self._encoded.reconstructions([self.image])[0]

    def _describe(self, error: np.ndarray) -> str:
        worst, best = self._worst_first[0], self._worst_first[-1]
        return (
            f"Image {self.image} of {len(self.names)} of {self._encoded.images_name}, {self.names[self.image]}: original, "
            f"reconstruction by {self._encoded.title}, and error. PSNR is {decibels(self._psnr[self.image])}; the error is "
            f"{error.mean():.3f} on average and {error.max():.3f} at its largest, of a range 0 to 1. The worst image is "
            f"{worst} with {decibels(self._psnr[worst])}, the best {best} with {decibels(self._psnr[best])}."
        )

    def figure(self) -> Figure | None:
        """Return the image, its reconstruction and error over what the lens shows of them, and the worst images below."""
        if self._encoded is None:
            return None
        original, reconstruction = self._pictures()
        error = error_map(original, reconstruction)
        figure = plt.figure(figsize=(8, 7.1), dpi=DPI, layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=(6, 1.3))
        axes = above.subplots(2, 3)
        top, left, side = self._lens_square(original)
        detail = slice(top, top + side), slice(left, left + side)
        titles = (
            f"image {self.image}: {self.names[self.image]}",
            f"reconstruction, {decibels(self._psnr[self.image])}",
            f"error, colours 0 to {ERROR_SCALE:g}",
        )
        for column, (picture, title) in enumerate(zip((original, reconstruction, error), titles, strict=True)):
            draw_picture(axes[0, column], picture, title)
            axes[0, column].add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, ec="white", lw=1.5))
            draw_picture(axes[1, column], picture[..., detail[0], detail[1]])
        axes[1, 0].set_ylabel(f"{side} x {side} pixels")
        ordered = {
            "worst first": self._worst_first,
            "best first": self._worst_first[::-1],
            "by number": np.arange(len(self.names)),
        }[self.order]
        for axis, row in zip(below.subplots(1, FIGURE_THUMBNAILS), ordered, strict=False):
            draw_picture(axis, self._encoded.pixels([row])[0], f"{row}: {decibels(self._psnr[row])}", size=9)
        for axis in below.axes[len(ordered) :]:
            axis.remove()
        below.suptitle(f"images, {self.order}", fontsize=10)
        return figure

    def _lens_square(self, picture: Tensor) -> tuple[int, int, int]:
        """Return top, left and side of what the lens shows, in pixels."""
        height, width = picture.shape[1:]
        side = max(1, int(min(height, width) / self.zoom + 0.5))
        top, left = (
            min(max(int(np.floor(centre - side / 2 + 0.5)), 0), whole - side)
            for centre, whole in zip(self.lens, (height, width), strict=True)
        )
        return top, left, side


def psnr_of(encoded: EncodedImages, rows: range) -> np.ndarray:
    """Return `encoded.psnr(rows)`; where decoding takes its time, as with a large tokenizer on a CPU, a bar says so."""
    found = []
    with progress_bar(total=len(rows), desc="decoding", unit=" images", delay=PATIENCE_SECONDS, leave=False) as bar:
        for first in range(0, len(rows), IMAGES_A_STEP):
            found.append(encoded.psnr(rows[first : first + IMAGES_A_STEP]))
            bar.update(len(found[-1]))
    return np.concatenate(found)


def error_map(a: Tensor, b: Tensor) -> np.ndarray:
    """Return the mean over the channels of the absolute difference of two uint8 [3, H, W], float32 [H, W] in [0, 1]."""
    return ((a.float() - b.float()).abs().mean(0) / 255).numpy()


def decibels(psnr: float) -> str:
    """Return a PSNR as text; "exact" where nothing differs."""
    return f"{psnr:.1f} dB" if np.isfinite(psnr) else "exact"


def draw_picture(axis: Axes, picture: Tensor | np.ndarray, title: str = "", *, size: int = 10) -> None:
    """Draw an image, uint8 [3, H, W], or an error map, float [H, W], without ticks."""
    if isinstance(picture, Tensor):
        axis.imshow(picture.permute(1, 2, 0).numpy())
    else:
        axis.imshow(picture, cmap="cividis", vmin=0, vmax=ERROR_SCALE)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=size, parse_math=False)  # a file may be called anything
