"""`RunComparison`: what two tokenizers make of the same images, in numbers and one over the other."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from vistok.plots import DPI
from vistok.runs import short_names
from vistok.tokens.encoded import EncodedImages
from vistok.widgets.reconstructions import ERROR_SCALE, decibels, draw_picture, error_map, psnr_of
from vistok.widgets.view import Refusal, View, image_png, script


class RunComparison(View):
    """Compare two tokenizers: a table, and a line that is dragged over an image between both reconstructions.

    Attributes:
        image: number of the image that is shown; may be set.
        share: of the width, from the left, that shows the first; may be set.
        names: of the two tokenizers; of runs the row, and what else differs.
        images: names of the images.
        table: rows of text, the header first.
    """

    _esm = script("errors", "comparison")
    image = traitlets.Int(0).tag(sync=True)
    share = traitlets.Float(0.5).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    images = traitlets.List(traitlets.Unicode()).tag(sync=True)
    table = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)
    psnr = traitlets.Bytes().tag(sync=True)  # float32, the first's in dB, then the second's; infinite: nothing differs
    original = traitlets.Bytes().tag(sync=True)  # PNG, as are the two reconstructions
    first = traitlets.Bytes().tag(sync=True)
    second = traitlets.Bytes().tag(sync=True)
    error_scale = traitlets.Float(ERROR_SCALE).tag(sync=True)

    def __init__(
        self, first: EncodedImages | Refusal, second: EncodedImages | Refusal, *, max_images: int = 32
    ) -> None:
        """Compare on the images that both encoded.

        Args:
            first, second: the same images by two tokenizers, or why there are none; other images are refused in `message`.
            max_images: the first so many are decoded, now, for their PSNR; usage is of all.
        """
        super().__init__()
        self._both: tuple[EncodedImages, EncodedImages] | None = None
        refused = [self.message for each in (first, second) if self._opened(each) is None]
        if not refused and max_images < 1:
            refused = [f"max_images is {max_images}, but must be at least 1."]
        if refused:
            self.message = " ".join(dict.fromkeys(refused))
            return
        rows = range(min(len(first), len(second), max_images))
        same_shape = len(first) == len(second) and first.pixels([0]).shape == second.pixels([0]).shape
        same = (first.pixels(rows) == second.pixels(rows)).flatten(1).all(1) if same_shape else torch.ones(1)
        differing = (same == 0).nonzero().flatten().tolist()
        if not same_shape or differing:
            what = f"{_images(first)}, but {_images(second)}"
            if same_shape:
                number = f"{len(differing)} of the {len(rows)}"
                what = f"as many and as large, but {number} differ, the first is image {differing[0]}"
            remedy = "Encode the same images, as many and as large, with both."
            self.message = f"The images are not the same: {what}. {remedy}"
            return
        self._both = first, second
        self._psnr = [psnr_of(each, rows) for each in self._both]
        names = short_names([each.name for each in self._both])
        self.names = names if names[0] != names[1] else [f"{names[0]} (first)", f"{names[1]} (second)"]
        self.images = first.image_names[: len(rows)]
        self.psnr = np.concatenate(self._psnr).astype("<f4").tobytes()
        self.table = self._table()
        self._show()

    def _table(self) -> list[list[str]]:
        """Return rows of text: what is measured, the first's, the second's, and how much more the second's is."""
        usage = [[each.usage(level) for level in range(len(each.tokens))] for each in self._both]

        def row(label: str, values: Sequence[float], shown: str) -> list[str]:
            difference = values[1] - values[0]
            return [label, *(format(value, shown) for value in values), format(difference, "+" + shown)]

        def mean(name: str) -> list[float]:
            return [float(np.mean([level[name] for level in levels])) for levels in usage]

        several = " (mean of codebooks)" if any(len(each.tokens) > 1 for each in self._both) else ""
        sizes = [" + ".join(f"{size:,}" for size in each.codebook_sizes) for each in self._both]
        tokens = [sum(level[0].size for level in each.tokens) for each in self._both]
        psnr = [float(np.mean(values)) for values in self._psnr]
        quality = f"mean PSNR of {len(self.images)} images, dB"
        if not all(np.isfinite(psnr)):  # a lossless one has no difference to another
            last = [quality, *(decibels(value) for value in psnr), ""]
        else:
            last = row(quality, psnr, ".2f")
        return [
            ["", *self.names, "difference"],
            ["codes", *sizes, ""],
            row("tokens an image", tokens, ",d"),
            row("usage, % of codes" + several, [100 * value for value in mean("usage")], ".1f"),
            row("usage of the queue, %" + several, [100 * value for value in mean("usage_queue")], ".1f"),
            row("perplexity, codes" + several, mean("perplexity"), ",.1f"),
            last,
        ]

    @traitlets.validate("image")
    def _known(self, proposal: Any) -> int:
        return self._known_number(proposal, len(self.images))

    @traitlets.validate("share")
    def _within(self, proposal: Any) -> float:
        if not 0 <= proposal.value <= 1:
            self.message = f"share is {proposal.value:g}, but must be in 0 to 1."
            return self.share
        if self._both is not None:
            self.message = ""
        return proposal.value

    @traitlets.observe("image")
    def _show(self, change: Any = None) -> None:
        if self._both is None:
            return
        with self._turn, self.hold_sync():
            original, *made = self._pictures()
            self.original = image_png(original)
            self.first, self.second = (image_png(picture) for picture in made)
            self.description = self._describe()

    def _pictures(self) -> list[torch.Tensor]:
        """Return the original and the two reconstructions."""
        first, second = self._both
        return [first.pixels([self.image])[0], *(each.reconstructions([self.image])[0] for each in (first, second))]

    def _describe(self) -> str:
        (_, first, second, _), *rows = self.table
        numbers = "; ".join(f"{label}: {a} and {b}" for label, a, b, _ in rows)
        psnr = [decibels(values[self.image]) for values in self._psnr]
        return (
            f"{first} and {second} on {len(self._both[0])} images of {self._both[0].images_name}. {numbers}. Shown is image "
            f"{self.image}, {self.images[self.image]}, with PSNR {psnr[0]} and {psnr[1]}: left of a line the first's "
            "reconstruction, right of it the second's."
        )

    def figure(self) -> Figure | None:
        """Return the table over the original, the two reconstructions on both sides of the line, and their errors."""
        if self._both is None:
            return None
        original, *made = self._pictures()
        split = round(self.share * original.shape[2])
        errors = [error_map(original, picture) for picture in made]
        both = torch.cat([made[0][..., :split], made[1][..., split:]], 2)
        error = np.concatenate([errors[0][:, :split], errors[1][:, split:]], 1)
        figure = plt.figure(figsize=(9.5, 5.6), dpi=DPI, layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=(2, 3.6))
        axis = above.subplots()
        axis.axis("off")
        header, *rows = self.table
        drawn = axis.table(
            [row[1:] for row in rows],
            colLabels=[textwrap.fill(name, 30) for name in header[1:]],
            colLoc="right",
            rowLabels=[row[0] for row in rows],
            loc="center",
            edges="horizontal",
            bbox=(0.3, 0, 0.7, 1),
        )
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(9)
        for column in range(3):  # names may take two lines
            drawn[0, column].set_height(1.7 * drawn[1, column].get_height())
            drawn[0, column].get_text().set_parse_math(False)
        axes = below.subplots(1, 3)
        draw_picture(axes[0], original, f"image {self.image}: {self.images[self.image]}")
        draw_picture(axes[1], both, " | ".join(decibels(values[self.image]) for values in self._psnr))
        draw_picture(axes[2], error, f"errors, colours 0 to {ERROR_SCALE:g}")
        for axis in axes[1:]:
            axis.axvline(split - 0.5, color="white", lw=1.5)
        below.supxlabel(
            f"left of the line: {self.names[0]}\nright of the line: {self.names[1]}", fontsize=9, parse_math=False
        )
        return figure


def _images(encoded: EncodedImages) -> str:
    height, width = encoded.pixels([0]).shape[2:]
    return f"{encoded.name} has {len(encoded)} images of {encoded.images_name} of {height} x {width} pixels"
