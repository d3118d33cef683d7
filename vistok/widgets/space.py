"""`CodebookSpace`: the codes as points of a plane, to be looked at, chosen and selected by a box."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch.nn import functional as F

from vistok import plots
from vistok.images import poster
from vistok.system.weights import first_line
from vistok.tokens.codebook import PROJECTIONS, Projection, decode_alone, is_there, project, usual_projection
from vistok.tokens.encoded import Chosen, EncodedImages
from vistok.widgets.codebookview import CodebookView
from vistok.widgets.view import Refusal, answering, image_png, script

DECODED_AHEAD = 256 * 256  # pixels decoded at once; codes beyond are decoded when one looks at them
LARGEST_REQUEST = 64  # codes
DRAWN_POINTS, DRAWN_PATCHES = 4096, 1024  # codes, in the figure
FIGURE_SIDE = 800  # pixels of the picture of all patches, each of 18


class CodebookSpace(CodebookView):
    """A scatter of the codes: coloured by how often images use them, each code's patch under the pointer, beside the map.

    Attributes:
        projection: a name of `vistok.tokens.codebook.PROJECTIONS`.
        patches: some codes decoded alone: their numbers, and a picture of squares.
    """

    _esm = script("cellmap", "curves", "scatter", "space")
    methods = traitlets.List().tag(sync=True)  # name, title, and what to install, where that is missing
    projection = traitlets.Unicode("codes").tag(sync=True)
    points = traitlets.Bytes(b"").tag(sync=True)  # float32 [K, 2]
    axes = traitlets.List(traitlets.Unicode(), ["", ""]).tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    patches = traitlets.Dict({}).tag(sync=True)

    def __init__(self, encoded: EncodedImages | Refusal, projection: str | None = None) -> None:
        """Show the codes as points.

        Args:
            encoded: images and their tokens (`open_encoded`), or why there are none.
            projection: "codes" or "tokens", the principal components of either; "umap" or "tsne", where their packages are
                installed; None: of the codes, or, where these would lie upon each other, of the tokens.
        """
        super().__init__()
        self._known: dict[tuple[int, str], Projection] = {}
        if not self._open(encoded):
            return
        self.methods = [
            [name, method.title, "" if is_there(name) else method.package] for name, method in PROJECTIONS.items()
        ]
        self._show_level(encoded.choice.chosen.level)
        encoded.choice.observe(lambda change: self._show(change.new), names="chosen")
        self._show(encoded.choice.chosen)
        if encoded.choice.chosen.code < 0:
            self.select(int(encoded.counts(self.level).argmax()))
        if projection is not None:
            self._project(projection)
        self.observe(self._on_level, names="level")
        self.observe(lambda change: self._project(change.new), names="projection")
        self.observe(lambda change: self.select(change.new), names="selected")
        self.on_msg(self._on_message)

    # Done by the mouse.

    @answering
    def select(self, code: int) -> None:
        """Choose a code, in all views; of one that there is not the message says so."""
        if code != self.encoded.choice.chosen.code:
            self.encoded.choice.choose(code)

    @answering
    def select_codes(self, codes: Sequence[int]) -> None:
        """Select several codes together, in all views; none: clear the selection."""
        self.encoded.choice.choose(codes=codes)

    @answering
    def select_box(self, left: float, right: float, low: float, high: float) -> None:
        """Select the codes whose points lie in a box, its edges included, in all views."""
        x, y = self._projected.points.double().T
        inside = (x >= left) & (x <= right) & (y >= low) & (y <= high)
        self.encoded.choice.choose(codes=inside.nonzero().flatten().tolist())

    # How it is done.

    @answering
    def _show(self, chosen: Chosen) -> None:
        if chosen.level != self._shown_level:
            self._show_level(chosen.level)
        with self.hold_sync():
            self.selected = chosen.code
            self._mark(chosen.codes)
            self._describe()

    def _show_level(self, level: int) -> None:
        self._shown_level = level
        with self.hold_sync():
            self.level = level
            self._read_codebook()
            self.patches = {}
            self._place(usual_projection(self._codebook, self.encoded.counts(level)))
            if self.sizes[level] * self._pixels_decoded <= DECODED_AHEAD:
                self.show_patches(range(self.sizes[level]))

    @property
    def _pixels_decoded(self) -> int:
        """Pixels that are decoded to show one code alone; a ViT decodes a whole image."""
        tokenizer = self.encoded.tokenizer
        return (tokenizer.downsample_factor if tokenizer.encoder.decodes_parts else tokenizer.image_size) ** 2

    def _project(self, projection: str) -> None:
        """Lay the codes out in another way; where that cannot be done, say why and stay."""
        if projection == self._shown_projection or self._refused:
            return
        with self._turn:
            if projection in PROJECTIONS and PROJECTIONS[projection].package:
                self.message = f"Computing {PROJECTIONS[projection].title}, which may take a minute …"
            try:
                self._place(projection)
            except Exception as error:  # also what another package raises: the page waits for an answer
                self.projection = self._shown_projection
                refused = isinstance(error, ValueError)
                self.message = str(error) if refused else f"{type(error).__name__}: {first_line(error)}."
            else:
                self.message = ""

    def _place(self, projection: str) -> None:
        known = (self.level, projection)
        if known not in self._known:
            self._known[known] = project(self._codebook, self.encoded.counts(self.level), projection)
        self._projected, self._shown_projection = self._known[known], projection
        with self.hold_sync():
            self.projection, self.axes = projection, list(self._projected.axes)
            self.points, self.note = self._projected.points.numpy().astype("<f4").tobytes(), self._projected.note
            self._describe()

    def _describe(self) -> None:
        size, counts, chosen = self.sizes[self.level], self.encoded.counts(self.level), self.encoded.choice.chosen
        dead = int((counts == 0).sum())
        parts = [f"{size:,} codes of {self.name} as points, by {PROJECTIONS[self.projection].title}"]
        parts.append(f"; across: {self.axes[0]}; up: {self.axes[1]}. {dead:,} of them are never chosen.")
        if chosen.code >= 0:
            parts.append(f" Chosen is code {chosen.code}, with {int(counts[chosen.code]):,} tokens.")
        if chosen.codes:
            tokens = int(counts[list(chosen.codes)].sum())
            parts.append(f" Selected are {len(chosen.codes):,} codes, with {tokens:,} tokens.")
        self.description = "".join(parts)

    @answering
    def show_patches(self, codes: Sequence[int]) -> None:
        """Hand the page some codes decoded alone."""
        tiles = torch.cat(list(decode_alone(self.encoded.tokenizer, torch.tensor(list(codes)), level=self.level)))
        columns = math.ceil(math.sqrt(len(codes)))
        self.patches = {
            "level": self.level,
            "codes": np.asarray(codes, "<u4").tobytes(),
            "columns": columns,
            "tile": tiles.shape[2],
            "picture": image_png(poster(tiles, columns).permute(2, 0, 1)),
        }

    def _on_message(self, widget: object, content: dict[str, Any], buffers: object) -> None:
        """Do what the page asks for."""
        arguments = dict(content)
        act = arguments.pop("do", None)
        if act == "box":
            self.select_box(**arguments)
        elif act == "codes":
            self.select_codes(**arguments)
        elif act == "patches":
            self.show_patches(arguments["codes"][:LARGEST_REQUEST])

    # Without a kernel.

    def figure(self) -> Figure | None:
        if self.encoded is None:
            return None
        figure, axes = plt.subplots(
            1, 2, figsize=(10, 5), dpi=plots.DPI, layout="constrained", sharex=True, sharey=True
        )
        points = self._projected.points
        points = points[points.isfinite().all(1)]
        low, high = points.amin(0), points.amax(0)
        middle, spread = (low + high) / 2, float((high - low).max()) or 1.0  # along the axis where they reach farther
        for axis in axes:
            axis.set_aspect("equal")
            for place, limit in zip(middle.tolist(), (axis.set_xlim, axis.set_ylim), strict=True):
                limit(place - 0.53 * spread, place + 0.53 * spread)
            axis.set_xlabel(self.axes[0], fontsize=9)
        self._draw_counts(axes[0])
        self._draw_patches(axes[1])
        axes[0].set_ylabel(self.axes[1], fontsize=9)
        return figure

    def _draw_counts(self, axis: Axes) -> None:
        counts, points = self.encoded.counts(self.level), self._projected.points
        shown = counts.argsort(descending=True, stable=True)[:DRAWN_POINTS].flip(0)  # the most frequent on top
        used, dead = shown[counts[shown] > 0], shown[counts[shown] == 0]
        norm = LogNorm(1, max(2, int(counts.max())))
        dots = axis.scatter(*points[used].T, s=14, c=counts[used], cmap="cividis", norm=norm)
        axis.scatter(*points[dead].T, s=14, marker="x", color="#8a3ffc", lw=0.8)
        title = f"{int((counts > 0).sum()):,} of {len(counts):,} codes used; crosses: never chosen"
        axis.set_title(title if len(shown) == len(counts) else f"{title}\nthe {len(shown):,} most frequent", fontsize=9)
        axis.figure.colorbar(dots, ax=axis, label="tokens", fraction=0.046, pad=0.02)

    def _draw_patches(self, axis: Axes) -> None:
        """Draw the most frequent codes as what they decode to alone, each where it lies."""
        counts, points = self.encoded.counts(self.level), self._projected.points
        most = min(DRAWN_PATCHES, max(16, 16 * DECODED_AHEAD // self._pixels_decoded))
        codes = counts.argsort(descending=True, stable=True)[:most]
        codes = codes[points[codes].isfinite().all(1)].flip(0)  # the most frequent on top
        tiles = torch.cat(list(decode_alone(self.encoded.tokenizer, codes, level=self.level)))
        tile, (low, high) = 18, zip(*(axis.get_xlim(), axis.get_ylim()), strict=True)
        (left, bottom), side = low, high[0] - low[0]
        picture = np.full((FIGURE_SIDE, FIGURE_SIDE, 3), 255, dtype=np.uint8)
        enlarged = F.interpolate(tiles.float(), (tile, tile), mode="nearest").to(torch.uint8)
        enlarged = enlarged.permute(0, 2, 3, 1).numpy()
        for (x, y), patch in zip(points[codes].tolist(), enlarged, strict=True):
            row = round((1 - (y - bottom) / side) * FIGURE_SIDE - tile / 2)
            column = round((x - left) / side * FIGURE_SIDE - tile / 2)
            picture[row : row + tile, column : column + tile] = patch
        axis.imshow(picture, extent=(left, left + side, bottom, bottom + side), interpolation="nearest")
        axis.set_title(f"{'each' if len(codes) == len(counts) else 'the most frequent'} decoded alone", fontsize=9)
