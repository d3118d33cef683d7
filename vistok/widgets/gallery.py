"""`QuantizerGallery`: one photograph through every quantizer of a table, as tiles."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import traitlets
from matplotlib.figure import Figure

from vistok.lessons import pictures
from vistok.lessons.pictures import RowPictures
from vistok.plots import DPI
from vistok.runs import numbered
from vistok.widgets.reconstructions import ERROR_SCALE, decibels, draw_picture, error_map
from vistok.widgets.view import Refusal, View, script

ORDERS = ("best first", "worst first", "fewest bits first", "by name", "as in the table")


class QuantizerGallery(View):
    """Look at one photograph through every quantizer: its reconstruction, PSNR and bits; a tile that is clicked grows.

    The pictures were made by `vistok.lessons.pictures` and come with the repository: no weights are needed.

    Attributes:
        image: number of the photograph that is shown; may be set.
        order: of the tiles, one of `ORDERS`; may be set.
        errors: show where the errors are instead of the pictures; may be set.
        images: names of the photographs, with their licences.
        missing: rows that there are no pictures of.
    """

    _esm = script("errors", "gallery")
    image = traitlets.Int(0).tag(sync=True)
    order = traitlets.Enum(ORDERS, ORDERS[0]).tag(sync=True)
    errors = traitlets.Bool(False).tag(sync=True)
    orders = traitlets.List(traitlets.Unicode(), list(ORDERS)).tag(sync=True)
    images = traitlets.List(traitlets.Unicode()).tag(sync=True)
    tiles = traitlets.List(traitlets.Dict()).tag(sync=True)  # as `_tile` makes them
    originals = traitlets.Bytes().tag(sync=True)  # the photographs side by side, a WebP file
    missing = traitlets.List(traitlets.Unicode()).tag(sync=True)
    error_scale = traitlets.Float(ERROR_SCALE).tag(sync=True)

    def __init__(self, rows: str | Sequence[str], *, folder: str | Path | None = None) -> None:
        """Show what there is of some rows.

        Args:
            rows: names of rows of a table, or one name; those without pictures are named.
            folder: of the pictures; None: those that come with the repository.
        """
        super().__init__()
        rows = [rows] if isinstance(rows, str) else list(rows)
        if not rows:
            self._refuse(Refusal("There are no rows to show: `rows` is empty."))
            return
        try:
            found = pictures.load(rows, folder)
        except ValueError as error:
            self._refuse(Refusal(str(error)))
            return
        self._rows = found.rows
        if not found.rows:
            remedy = "python -m vistok.lessons.pictures makes them of runs."
            self._refuse(Refusal(f"There are no pictures of {', '.join(rows)}: {remedy}"))
            return
        stems = [Path(name).stem.replace("_", " ") for name in found.names]  # several may be windows of one photograph
        named = zip(numbered(stems), found.licences, strict=True)
        self.images = [name + (f", {licence}" if licence else "") for name, licence in named]
        self.tiles = [_tile(row) for row in found.rows]
        self.originals, self.missing = found.originals, list(found.missing)
        self._describe()

    @traitlets.validate("image")
    def _known(self, proposal: Any) -> int:
        return self._known_number(proposal, len(self.images))

    @traitlets.observe("image", "order")
    def _describe(self, change: Any = None) -> None:
        if not self.tiles:
            return
        image, number = self.image, len(self.tiles)
        listed = "; ".join(f"{row.name} {decibels(row.psnr[image])}, {row.bits:,.0f} bits" for row in self.ordered())
        without = f" There are no pictures of {', '.join(self.missing)}." if self.missing else ""
        self.description = f"{self.images[image]} as {number} quantizers make it, {self.order}: {listed}.{without}"

    def ordered(self) -> list[RowPictures]:
        """Return the rows in the order that is shown."""
        keys = {
            "best first": lambda row: -row.psnr[self.image],
            "worst first": lambda row: row.psnr[self.image],
            "fewest bits first": lambda row: (row.bits, -row.psnr[self.image]),
            "by name": lambda row: row.name,
            "as in the table": lambda row: 0,
        }
        return sorted(self._rows, key=keys[self.order])

    def figure(self) -> Figure | None:
        """Return the photograph and what each quantizer makes of it, or where it errs."""
        if not self.tiles:
            return None
        number, columns = len(self.images), 7
        original = pictures.pixels(self.originals, number)[self.image]
        lines = math.ceil((1 + len(self.tiles)) / columns)
        size = (9.5, 1.75 * lines + 0.3)
        figure, axes = plt.subplots(lines, columns, figsize=size, dpi=DPI, layout="constrained", squeeze=False)
        draw_picture(axes[0, 0], original, "original", size=8)
        for axis, row in zip(axes.flat[1:], self.ordered(), strict=False):
            made = pictures.pixels(row.strip, number)[self.image]
            shown: Any = error_map(original, made) if self.errors else made
            draw_picture(axis, shown, f"{row.name}\n{decibels(row.psnr[self.image])}", size=8)
        for axis in axes.flat[1 + len(self.tiles) :]:
            axis.remove()
        figure.suptitle(self.images[self.image], fontsize=9)
        return figure


def _tile(row: RowPictures) -> dict[str, Any]:
    """Return a row for the page, as `RowPictures` has it, but None for a PSNR where nothing differs."""
    return dataclasses.asdict(row) | {"psnr": [value if np.isfinite(value) else None for value in row.psnr]}
